# SPDX-License-Identifier: Apache-2.0
"""What a benchmark is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from ..records import Record
from ..samples import Sample
from .sources import hub_commit


@dataclass(frozen=True)
class Suite:
    """
    A benchmark; its fields are its knobs.

    Attributes:
        name: what `hybridctx evaluate` calls it.
        metric: what its scores are called.
        task_names: all its tasks, in the order of its tables; empty where they come with the data.
        tasks: only these; all if empty.
        examples: samples for each task (and length); None: all that the data has.
        seed: of all that is drawn.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    task_names: ClassVar[tuple[str, ...]] = ()

    tasks: tuple[str, ...] = ()
    examples: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        if unknown := [task for task in self.tasks if self.task_names and task not in self.task_names]:
            raise ValueError(f"{self.name} has no task {unknown[0]!r}; it has {', '.join(self.task_names)}")
        if self.examples is not None and self.examples < 1:
            raise ValueError(f"examples={self.examples} must be 1 or more")

    @property
    def chosen_tasks(self) -> tuple[str, ...]:
        return self.tasks or self.task_names

    def pinned(self) -> Self:
        """The same with the commit of its data on the Hub as its `revision`; what is local stays as it is."""
        data, knobs = getattr(self, "data", None), {one.name for one in fields(self)}
        if not data or "revision" not in knobs or Path(data).exists():
            return self
        pin: dict[str, Any] = {"revision": hub_commit(data, getattr(self, "revision"))}  # noqa: B009
        return replace(self, **pin)

    def samples(self, tokenizer: Any) -> list[Sample]:
        """All samples, in an order that the knobs alone decide.

        Args:
            tokenizer: the model's own, by which lengths are counted.

        Raises:
            ValueError, OSError: data that is not there, or not in the published schema; before any model runs.
        """
        raise NotImplementedError

    def score(self, sample: Sample, answer: str) -> float:
        """0 to 1."""
        raise NotImplementedError

    def grade(self, sample: Sample, answer: str) -> tuple[float, dict[str, Any]]:
        """Score and details of an answer, where both come out of the same work."""
        return self.score(sample, answer), self.details(sample, answer)

    def details(self, sample: Sample, answer: str) -> dict[str, Any]:
        """What a record keeps beside the score."""
        return {}

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """Figures that are quoted, from the means of the tasks: name -> 0 to 1."""
        return {"mean": sum(means.values()) / len(means)} if len(means) > 1 else {}

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """More figures that are quoted, from all records of a context and length: name -> 0 to 1."""
        return {}

    def settings(self) -> dict[str, Any]:
        """What decides its samples."""
        return {"suite": self.name} | {
            one.name: str(value) if hasattr(value := getattr(self, one.name), "__fspath__") else value
            for one in fields(self)
        }

    def _first(self, samples: Sequence[Sample]) -> list[Sample]:
        """The chosen tasks' first `examples` samples each."""
        counts: dict[tuple[str, int | None], int] = {}
        kept = []
        for sample in samples:
            place = (sample.task, sample.length)
            if (self.tasks and sample.task not in self.tasks) or counts.get(place, 0) == self.examples:
                continue
            counts[place] = counts.get(place, 0) + 1
            kept.append(sample)
        if not kept:
            raise ValueError(f"no sample of {self.name} is left of {len(samples)} with tasks={list(self.tasks)}")
        return kept


__all__ = ["Suite"]
