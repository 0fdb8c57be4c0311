# SPDX-License-Identifier: Apache-2.0
"""`hybridctx ask` and `hybridctx read`: what they print and what they write."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import TALE, refused, run
from document_samples import RED_SQUARE, pdf_file
from PIL import Image
from sample_answers import answer_that_says
from typer.testing import Result

from transformers_hybridctx import HybridCtxProcessor, PageRenderer
from transformers_hybridctx.caching.checkpoint_checksum import checkpoint_checksum
from transformers_hybridctx.cli import ask as ask_command


def ask(checkpoint: Path, document: Any, *arguments: Any) -> Result:
    return run("ask", document, "--model", checkpoint, "--max-new-tokens", 3, *arguments)


def test_ask_prints_answer_evidence_plan_and_times_of_each_question(checkpoint: Path, document: str) -> None:
    result = ask(checkpoint, document, "-q", "Which number?", "--question", "Which age?")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    first, second, end = re.split("─{20,}\n", result.stdout)[1:]
    for question, block in (("Which number?", first), ("Which age?", second)):
        rows = [line.split(None, 1) for line in block.splitlines() if not line.startswith(" ")]
        labels = [label for label, _ in rows if label != "standing"]
        assert labels[:4] == ["question", "answer", "confidence", "score"]
        assert "cut off: " in block or "cut off before" in block
        assert [label for label, _ in rows][-8:] == [
            *("document", "pages", "density", "copied", "prompt", "compression"),
            *("left", "seconds"),
        ]
        found = dict(rows)
        assert found["question"] == question
        assert found["document"].startswith(f"{len(TALE):,} characters, ")
        assert re.fullmatch(
            r"plan [\d.]+, (draw [\d.]+, vision [\d.]+, read [\d.]+, )?answer [\d.]+, evidence [\d.]+",
            found["seconds"],
        )
    assert re.fullmatch(r"in all +read the file .*, load the model .*, lay it out .*, answer [\d.]+\n", end)


def test_ask_prints_json_and_nothing_else(checkpoint: Path, document: str, tmp_path: Path) -> None:
    arguments = ("-q", "Which number?", "-q", "Welche Größe?", "--json", "--evidence-dir", tmp_path)
    result = ask(checkpoint, document, *arguments)
    assert result.exit_code == 0, result.output
    answers = json.loads(result.stdout)
    assert [answer["question"] for answer in answers] == ["Which number?", "Welche Größe?"]
    expected = "question answer checked support reasoning finish_reason confidence score quotations evidence passages"
    assert list(answers[0]) == [*expected.split(), "usage", "plan", "pictures"]
    assert answers[0]["usage"]["new_tokens"] <= 3
    assert answers[0]["plan"]["document_characters"] == len(TALE)
    for passage in answers[0]["passages"]:
        assert passage["text"] == TALE[passage["start"] : passage["end"]]
        assert 1 <= passage["page"] <= answers[0]["plan"]["pages"]


def test_ask_reads_the_document_once(checkpoint: Path, document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    typeset, texts = PageRenderer.typeset, []
    monkeypatch.setattr(PageRenderer, "typeset", lambda self, text: texts.append(text) or typeset(self, text))
    assert ask(checkpoint, document, *("-q", "One?") * 5).exit_code == 0
    assert texts == [TALE]


def test_ask_shows_evidence_in_its_context_and_marks_its_page(
    processor: HybridCtxProcessor, document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Knows:
        """A pipeline whose model knows the answer."""

        def __init__(self) -> None:
            self.processor = processor
            config = SimpleNamespace(_name_or_path="org/knows", purpose="knows one number")
            self.model = SimpleNamespace(generation_config=SimpleNamespace(num_beams=1), config=config)

        def __call__(self, question: list[str], document: Any, **kwargs: Any) -> list[dict[str, Any]]:
            plan = processor.plan(document, question[0])
            said = "<think>the lemur's</think>4821930"
            return [answer_that_says(processor, plan, question[0], said, return_pages=kwargs["return_pages"])]

    monkeypatch.setattr(ask_command, "load_pipeline", lambda *_: Knows())
    folder = tmp_path / "new" / "folder"
    folder.mkdir(parents=True)
    (folder / "question-7-page-2.png").write_bytes(b"of an earlier call")
    result = run("ask", document, "-q", "Number for green-lemur?", "--evidence-dir", folder)
    assert result.exit_code == 0, result.output
    start = TALE.index("4821930")
    page = processor.read_document(TALE).page_of(start)
    place = f"evidence     page {page + 1}, characters {start} to {start + 7}, box ("
    assert place in result.stdout
    assert "reasoning    the lemur's\nanswer       4821930\n" in result.stdout
    assert re.search(r"\n +….*magic number for green-lemur is: 4821930\. It was the age of .*…\n", result.stdout)
    (picture,) = folder.iterdir()
    assert picture.name == f"question-1-page-{page + 1}.png"
    assert f"picture      {picture}\n" in result.stdout
    assert "\ncheckpoint   knows knows one number\n" in result.stdout
    assert len(np.unique(np.asarray(Image.open(picture)).reshape(-1, 3), axis=0)) > 2


def test_a_page_says_what_an_answer_rests_on(
    processor: HybridCtxProcessor, pipe: Any, document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = "Number for <b>green-lemur</b>?"

    class Knows:
        """A pipeline whose model knows the answer."""

        def __init__(self) -> None:
            self.processor, self.model = processor, pipe.model

        def __call__(self, question: list[str], document: Any, **kwargs: Any) -> list[dict[str, Any]]:
            plan = processor.plan(document, question[0])
            return [answer_that_says(processor, plan, question[0], "4821930", return_pages=kwargs["return_pages"])]

    monkeypatch.setattr(ask_command, "load_pipeline", lambda *_: Knows())
    result = run("ask", document, "-q", question, "--why", tmp_path / "new" / "why.html")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "new" / "why.html").read_text(encoding="utf-8")
    assert "<h2>Number for &lt;b&gt;green-lemur&lt;/b&gt;?</h2>" in page
    assert '<span class="bold green">4821930</span>' in page and "verbatim" in page
    assert checkpoint_checksum(pipe.model) in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)  # nothing comes from elsewhere
    (encoded,) = re.findall(r"data:image/png;base64,([^\"]+)", page)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert picture.shape[1] >= 500 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 2


def test_a_document_that_was_read_is_asked_without_its_file(checkpoint: Path, document: str, tmp_path: Path) -> None:
    out = tmp_path / "tale.safetensors"
    result = run("read", document, out, "--model", checkpoint, "--text-policy", "anchors")
    assert result.exit_code == 0, result.output
    assert f"written to   {out}" in result.stdout
    assert "no question has to pay again" in result.stdout
    asked = ["--model", checkpoint, "-q", "What is the number?", "-q", "Which age?", "--max-new-tokens", 3, "--json"]
    expected = json.loads(run("ask", document, *asked, "--text-policy", "anchors").stdout)
    found = json.loads(run("ask", out, *asked).stdout)
    assert [answer["answer"] for answer in found] == [answer["answer"] for answer in expected]
    planned = run("plan", out, "--model", checkpoint, "-q", "What is the number?")
    assert planned.exit_code == 0, planned.output
    assert re.search(rf"^anchors +{expected[0]['usage']['prompt_tokens']} ", planned.stdout, re.MULTILINE)
    assert "comes too late" in refused("ask", out, "-q", "What?", "--model", checkpoint, "--encoding", "cp1252")
    assert "does not end with .safetensors" in refused("read", document, tmp_path / "tale", "--model", checkpoint)
    other = refused("ask", out, "-q", "What?")
    assert "another checkpoint" in other and "pipe.read" not in other


def test_ask_says_what_a_pdf_leaves_out(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf_file(["Text.", RED_SQUARE]))
    result = ask(checkpoint, tmp_path / "a.pdf", "-q", "What?", "--json")
    assert re.fullmatch(r"warning: .*a.pdf: pages 2 hold pictures .*; they are shown, [^\n]+\n", result.stderr)
    assert len(json.loads(result.stdout)) == 1


def test_pages_of_a_pdf_are_chosen_and_named(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf_file(["One is first.", "Two is second.", "Three is third."]))
    asked = ask(checkpoint, tmp_path / "a.pdf", "-q", "Which?", "--pages", "2-", "--text-policy", "full", "--json")
    (answer,) = json.loads(asked.stdout)
    first, second = answer["passages"]
    assert (first["text"].strip(), second["text"].strip()) == ("Two is second.", "Three is third.")
    assert (first["page"], first["page_in_file"]) == (1, {"number": 2, "label": "2", "file": ""})
    assert (second["page"], second["page_in_file"]) == (2, {"number": 3, "label": "3", "file": ""})
    told = refused("ask", tmp_path / "a.pdf", "-q", "?", "--pages", "4")
    assert told.startswith("--pages '4': ") and "has the pages 1 to 3" in told


def test_words_in_brackets_are_words(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("[bold]x[/bold] [/] [red]")
    result = ask(checkpoint, tmp_path / "a.txt", "-q", "[/what] is [red]?")
    assert result.exit_code == 0, result.output
    assert "[/what] is [red]?" in result.stdout
    assert "no file [/none].txt" in refused("ask", "[/none].txt", "-q", "?")
