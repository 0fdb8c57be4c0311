# SPDX-License-Identifier: Apache-2.0
"""A suite, a model, contexts: every sample in every context, each kept as it is finished."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import logging

from .contexts import Context, make_contexts
from .judging import GradeError
from .models import PREFIX_PLACES, Model, Reply, load_model
from .records import Record, RecordFile
from .samples import Sample
from .suites.base import Suite
from .suites.registry import make_suite
from .tables import Table, table_of


def run(
    suite: Suite | str,
    model: Any = None,
    contexts: Sequence[Context] | None = None,
    *,
    out: str | Path | None = None,
    answer_prefix: str | None = None,
    **generation: Any,
) -> Table:
    """
    Evaluate a model.

    ```python
    >>> from transformers_hybridctx import evaluation
    >>> table = evaluation.run("ruler", "org/checkpoint", evaluation.make_contexts(["pages", "hybrid"], budget=4096))
    >>> print(table.to_markdown())
    ```

    Questions on the same context share one reading of its pages, as in kvpress. An answer is what the model says after
    its reasoning.

    Args:
        suite: a [`Suite`], or the name of one with its own knobs.
        model: a `LongDocQAPipeline`, a checkpoint's folder or Hub id (None: the bundled one), or any other causal
            language model's, which knows the contexts `tokens` and `truncated`.
        contexts: what prompts are made of; `make_contexts(budget_share=0.5)` if not given.
        out: a folder that keeps each sample as it is finished. A run that was stopped goes on there.
        answer_prefix: where the benchmark's own beginning of an answer stands: "question", at its end; "answer": the
            model's answer begins with it. None: nowhere.
        generation: parameters such as `num_beams`; `max_new_tokens` takes the place of the benchmark's own bound.

    Raises:
        ValueError, OSError: data, contexts or a folder that do not fit; before the model answers anything.
    """
    if answer_prefix not in (None, *PREFIX_PLACES):
        raise ValueError(
            f"answer_prefix={answer_prefix!r} is not one of {', '.join(map(repr, PREFIX_PLACES))} and None"
        )
    suite = (make_suite(suite) if isinstance(suite, str) else suite).pinned()
    contexts = make_contexts(budget_share=0.5) if contexts is None else list(contexts)
    labels = [context.label for context in contexts]
    if len(set(labels)) < len(labels):
        raise ValueError(f"context {max(labels, key=labels.count)!r} is given twice")
    asked = load_model(model)
    samples = suite.samples(asked.tokenizer)
    settings = {
        **suite.settings(),
        "model": asked.name,
        "weights": asked.weights,
        "contexts": {context.label: asdict(context) for context in contexts},
        "answer_prefix": answer_prefix,
        "generation": {name: repr(value) for name, value in sorted(generation.items())},
    }
    records = RecordFile(None if out is None else Path(out), settings)
    _answer_all(suite, asked, contexts, samples, records, answer_prefix, generation)
    wanted = [records[sample.key, label] for sample in samples for label in labels]
    return table_of(suite, wanted, labels, environment(asked))


def _answer_all(
    suite: Suite,
    model: Model,
    contexts: Sequence[Context],
    samples: Sequence[Sample],
    records: RecordFile,
    answer_prefix: str | None,
    generation: dict[str, Any],
) -> None:
    with logging.tqdm(total=len(samples) * len(contexts), desc=suite.name, unit="answer") as progress:
        total = done = failed = 0.0

        def count(record: Record) -> None:
            nonlocal total, done, failed
            total, done, failed = total + record.score, done + 1, failed + (record.error is not None)
            progress.set_postfix_str(f"{total / done:.1%}" + (f", {failed:.0f} failed" if failed else ""))
            progress.update()

        for _, group in groupby(samples, key=lambda sample: sample.context):
            together = list(group)
            for context in contexts:
                left = []
                for sample in together:
                    if (sample.key, context.label) in records:
                        count(records[sample.key, context.label])
                    else:
                        left.append(sample)
                if not left:
                    continue
                replies = model.answers(left, context, answer_prefix, **generation)
                for sample, reply in zip(left, replies, strict=True):
                    record = _record_of(suite, sample, context, reply)
                    records.add(record)
                    count(record)


def _record_of(suite: Suite, sample: Sample, context: Context, reply: Reply | Exception) -> Record:
    what: dict[str, Any] = {
        "sample": sample.key,
        "context": context.label,
        "task": sample.task,
        "length": sample.length,
    }
    if not isinstance(reply, Exception):
        try:
            score, details = suite.grade(sample, reply.answer)
            return Record(**what, score=float(score), details=details, **vars(reply))
        except GradeError as error:
            reply = error
    said = f"{type(reply).__name__}: {reply}"[:500]
    bound = context.prompt_bound(sample.length or 0)
    return Record(**what, score=0.0, error=said, budget=bound, details=suite.details(sample, ""))


def environment(model: Any) -> dict[str, Any]:
    """What figures were measured with: a pipeline's or a [`Model`]'s device, and the versions."""
    return {
        "device": str(model.device),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


__all__ = ["environment", "run"]
