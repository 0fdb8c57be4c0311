# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training that a killed process or a full disk cannot damage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint, rotate_checkpoints

_UNFINISHED = "unfinished"


class WholeCheckpoints:
    """Before a `Trainer` among the bases: each checkpoint is written beside the others, and named when it is whole."""

    args: Any
    state: Any
    accelerator: Any
    _folder: str | None = None

    def _get_output_dir(self, trial: Any) -> str:
        return self._folder or super()._get_output_dir(trial)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint beside the others, and give it its name when all of it is there."""
        folder = Path(super()._get_output_dir(trial))  # type: ignore[misc]
        unfinished, name = folder / _UNFINISHED, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
        self.accelerator.wait_for_everyone()
        self._folder = str(unfinished)
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            last = get_last_checkpoint(str(folder))
            raise OSError(
                f"the checkpoint of step {self.state.global_step} could not be written to {folder}: {error}. "
                + (f"{last} is sound" if last else "None was saved before")
                + ". Make room there (save_total_limit keeps fewer checkpoints), and call again to go on"
            ) from error
        finally:
            self._folder = None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            shutil.rmtree(folder / name, ignore_errors=True)
            os.replace(unfinished / name, folder / name)
            unfinished.rmdir()
            rotate_checkpoints(str(folder), self.args.save_total_limit)
        self.accelerator.wait_for_everyone()


__all__ = ["WholeCheckpoints"]
