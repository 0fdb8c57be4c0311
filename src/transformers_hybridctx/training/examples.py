# SPDX-License-Identifier: Apache-2.0
"""Examples by number: which record, objective, channel and style the i-th one has follows from the seed alone.

So a run that stops goes on with the very examples that it would have had, in the midst of an epoch and with another
number of workers, which typeset and draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..rendering.styles import StyleSampler
from .objectives import OBJECTIVES, Example, ExampleMaker, possible_objectives
from .records import TrainingRecord, UnusableRow
from .unused import note_unused

CHANNELS = ("both", "pages", "tokens")
_TRIES = 50


class TrainingExamples(Dataset[Example]):
    """
    Args:
        sources: records of each source, by number: tables of rows, as [`TrainingRecord.as_row`] makes them.
        weights: how many times an epoch each record of a source is drawn, on average.
        maker: makes examples.
        objectives, channels: weights of each; of objectives those are drawn that a record has what it takes for.
        length: how many examples there are to be: steps times examples a step.
        seed: of everything.
        styles: draws pages in styles at random; None: in the checkpoint's own.
        unused_path: a file that a line of JSON is added to for each record that could not be used.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[Mapping[str, Any]]],
        weights: Sequence[float],
        maker: ExampleMaker,
        *,
        objectives: Mapping[str, float],
        channels: Mapping[str, float],
        length: int,
        seed: int = 0,
        styles: StyleSampler | None = None,
        unused_path: Path,
    ) -> None:
        if unknown := sorted(objectives.keys() - OBJECTIVES.keys()):
            raise ValueError(f"objectives: there is no {', '.join(unknown)}; there are {', '.join(OBJECTIVES)}")
        if unknown := sorted(channels.keys() - set(CHANNELS)):
            raise ValueError(f"channels: there is no {', '.join(unknown)}; there are {', '.join(CHANNELS)}")
        if not any(map(len, sources)):
            raise ValueError("data: no source has a record that can be used")
        self._sources, self._maker = sources, maker
        self._objectives, self._channels = dict(objectives), dict(channels)
        self._length, self._seed, self._styles = length, seed, styles
        self._unused_path = unused_path
        # a small weight is no weight of nothing
        shares = zip(sources, weights, strict=True)
        self._counts = [max(1, round(len(source) * weight)) if len(source) else 0 for source, weight in shares]
        self._epoch = lru_cache(maxsize=2)(self._order)

    def __len__(self) -> int:
        return self._length

    @property
    def epoch_length(self) -> int:
        """Examples in an epoch."""
        return sum(self._counts)

    def __getitem__(self, index: int) -> Example:
        rng = Random(f"{self._seed} {index}")
        for attempt in range(_TRIES):
            record = self._record(index + attempt * self._length)
            possible = possible_objectives(record)
            fitting = {name: weight for name, weight in self._objectives.items() if name in possible and weight}
            # of one that nothing can be made of, the objective says why
            objective, channel = _drawn(rng, fitting or self._objectives), _drawn(rng, self._channels)
            style = None if self._styles is None else self._styles.sample(rng.getrandbits(63))
            try:
                return OBJECTIVES[objective](self._maker, record, rng, style, channel)
            except UnusableRow as reason:
                note_unused(self._unused_path, record.source, objective, str(reason))
        raise ValueError(
            f"{_TRIES} records one after another could not be used for {', '.join(self._objectives)}: see "
            f"{self._unused_path}; raise max_tokens or the budget, or choose other objectives"
        )

    def _record(self, index: int) -> TrainingRecord:
        epoch, place = divmod(index, self.epoch_length)
        number = int(self._epoch(epoch)[place])
        for source, count in zip(self._sources, self._counts, strict=True):
            if number < count:
                return TrainingRecord.of_row(dict(source[number % len(source)]))
            number -= count
        raise AssertionError

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._seed, epoch]).permutation(self.epoch_length)


def _drawn(rng: Random, weights: Mapping[str, float]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


__all__ = ["CHANNELS", "TrainingExamples"]
