# SPDX-License-Identifier: Apache-2.0
"""How far long work is: every stage from none to all of it, to whoever listens in this context, who may end it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from transformers_hybridctx import LongDocQAPipeline
from transformers_hybridctx.cli import console
from transformers_hybridctx.cli.console import Pace
from transformers_hybridctx.progress import heard_by, is_heard

TEXT = "It was the best of times, it was the worst of times. The code of room 7 is 4821930. " * 12


def test_reading_tells_each_stage_from_none_to_all(pipe: LongDocQAPipeline) -> None:
    heard: dict[str, list[tuple[int, int | None]]] = {}
    with heard_by(lambda stage, done, total: heard.setdefault(stage, []).append((done, total))):
        reading = pipe.read(text=TEXT, text_policy="none", prefill_chunk_size=64)
    pages = reading.plan.num_pages
    assert heard["pages typeset"] == [(0, None), (pages, pages)]
    assert heard["pages drawn"][0] == (0, pages) and heard["pages drawn"][-1] == (pages, pages)
    assert [done for done, _ in heard["pages read"]] == [*range(0, pages, 4), pages]
    done, totals = zip(*heard["tokens read"], strict=True)
    assert totals[0] == len(reading) and list(done) == [*range(0, len(reading), 64), len(reading)]


def test_questions_are_counted_and_no_bar_is_drawn_beside_the_listener(
    pipe: LongDocQAPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    reading = pipe.read(text=TEXT)
    heard = []
    with heard_by(lambda stage, done, total: heard.append((stage, done, total))):
        pipe(question=["Which code?", "Which times?"], document=reading)
    assert [one[1:] for one in heard if one[0] == "questions answered"] == [(1, 2), (2, 2)]
    assert "questions" not in capsys.readouterr().err


def test_a_listener_ends_the_work_and_hears_its_own_thread_only(pipe: LongDocQAPipeline) -> None:
    class EnoughError(Exception):
        pass

    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "pages read":
            raise EnoughError

    with pytest.raises(EnoughError), heard_by(stop):
        pipe.read(text=TEXT)
    with heard_by(stop), ThreadPoolExecutor(1) as other:
        assert not other.submit(is_heard).result()
        assert len(other.submit(lambda: pipe.read(text=TEXT)).result())
    assert not is_heard()


def test_a_pace_is_a_rate_and_what_is_left_of_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 14.0, 15.0, 16.0, 20.0, 30.0, 31.0, 32.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    pace = Pace()
    assert pace.words("pages read", 0, 29) == "pages read: 0 of 29"
    assert pace.words("pages read", 8, 29) == "pages read: 8 of 29, 2.0 a second, 10 s left"
    assert pace.words("pages read", 29, 29) == "pages read: 29 of 29"
    assert pace.words("documents answered", 0, 100) == "documents answered: 0 of 100"
    assert pace.words("documents answered", 2, 100) == "documents answered: 2 of 100, 0.5 a second, 3 min left"
    around = "documents answered: 2 of 100, 0.5 a second, 3 min left; "
    assert pace.words("pages read", 0, 5) == f"{around}pages read: 0 of 5"
    assert pace.words("pages read", 4, None) == f"{around}pages read: 4 of 5, 4.0 a second, 1 s left"
    assert pace.words("pages read", 6, None) == f"{around}pages read: 6"
