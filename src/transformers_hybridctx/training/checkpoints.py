# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training that a killed process or a full disk cannot damage."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        with self._written_beside(folder, f"the checkpoint of step {self.state.global_step}") as unfinished:
            self._folder = str(unfinished)
            try:
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
            finally:
                self._folder = None
        if self.args.should_save:
            shutil.rmtree(folder / name, ignore_errors=True)
            os.replace(unfinished / name, folder / name)
            unfinished.rmdir()
            rotate_checkpoints(str(folder), self.args.save_total_limit)
        self.accelerator.wait_for_everyone()

    def save_whole(self, folder: Path) -> None:
        """`save_model`, whose files come into the folder when all of them are there."""
        with self._written_beside(folder, "the model") as unfinished:
            self.save_model(str(unfinished))  # type: ignore[attr-defined]
        if self.args.should_save:
            for part in unfinished.iterdir():
                if part.is_dir():  # a folder, such as that of fonts, takes the place of an empty one only
                    shutil.rmtree(folder / part.name, ignore_errors=True)
                os.replace(part, folder / part.name)
            unfinished.rmdir()

    @contextmanager
    def _written_beside(self, folder: Path, what: str) -> Iterator[Path]:
        """
        A folder in another, to write into; all processes have written when it is left.

        Raises:
            OSError: it could not be written; it is away, and the message says which checkpoint is sound.
        """
        unfinished = folder / _UNFINISHED
        if self.args.should_save:
            shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
        self.accelerator.wait_for_everyone()
        try:
            yield unfinished
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            last = get_last_checkpoint(str(folder))
            raise OSError(
                f"{what} could not be written to {folder}: {error}. "
                + (f"{last} is sound" if last else "No checkpoint was saved before")
                + ". Make room there (save_total_limit keeps fewer checkpoints), and call again to go on"
            ) from error
        self.accelerator.wait_for_everyone()


__all__ = ["WholeCheckpoints"]
