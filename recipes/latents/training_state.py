# SPDX-License-Identifier: Apache-2.0
"""How far a training is, on disk: what was stopped goes on."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

_EVERY = 60.0
"""Seconds of training between two states that are written: what a stop loses at most."""


class TrainingState:
    """
    How far a training is, and the file that it goes on from.

    Args:
        asked: what has to be alike for a training to go on.
        parts: what is trained, and its optimiser, by name.
    """

    def __init__(self, path: Path, asked: dict[str, Any], parts: dict[str, Any]) -> None:
        self._path, self._asked, self._parts = path, asked, parts
        self.step, self.minutes = 0, 0.0
        self.means: dict[str, float] = {}
        self._written = time.perf_counter()

    def count(self, minutes: float, **losses: float) -> None:
        """One step more, which began after so many minutes; `means` are running ones of its losses."""
        for name, loss in losses.items():
            self.means[name] = 0.95 * self.means[name] + 0.05 * loss if name in self.means else loss
        self.step, self.minutes = self.step + 1, minutes

    def load(self) -> bool:
        """Go on from the file; False: there is none."""
        if not self._path.is_file():
            return False
        found = torch.load(self._path, weights_only=True)
        for name, value in self._asked.items():
            if found["asked"][name] != value:
                raise ValueError(
                    f"{self._path} is of a training with {name}={found['asked'][name]}, not {value}: name another "
                    "folder, or delete the file to begin anew"
                )
        for name, part in self._parts.items():
            part.load_state_dict(found[name])
        self.step, self.minutes, self.means = found["step"], found["minutes"], found["means"]
        return True

    def save_now_and_then(self) -> None:
        """Write the file if the last one is a minute old."""
        if time.perf_counter() - self._written > _EVERY:
            self.save()

    def save(self) -> None:
        """Write the file; a stop while it is written leaves the one before."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        unfinished = self._path.with_suffix(".partial")
        progress = {"step": self.step, "minutes": self.minutes, "means": self.means}
        torch.save({"asked": self._asked, **progress, **parts}, unfinished)
        os.replace(unfinished, self._path)
        self._written = time.perf_counter()
