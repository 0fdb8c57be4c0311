# SPDX-License-Identifier: Apache-2.0
"""`hybridctx chat`: one reading, many questions, and what a line with a slash does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import TALE
from PIL import Image
from typer.testing import CliRunner

from transformers_hybridctx import PageRenderer
from transformers_hybridctx.cli.app import app


def chat(checkpoint: Path, document: object, *lines: str) -> tuple[str, str]:
    arguments = ["chat", str(document), "--model", str(checkpoint), "--max-new-tokens", "3"]
    result = CliRunner().invoke(app, arguments, input="\n".join(lines) + "\n", env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_a_chat_reads_once_answers_each_line_and_goes_on_after_errors(
    checkpoint: Path, document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typeset, texts = PageRenderer.typeset, []
    monkeypatch.setattr(PageRenderer, "typeset", lambda self, text: texts.append(text) or typeset(self, text))
    out, errors = chat(
        checkpoint,
        document,
        *("/passages", "Which number?", "", "/passages", "/page 1", "/page 99", "/nonsense", "/save tale.safetensors"),
        *("/save elsewhere", "Which age?", "/help", "/quit", "Never asked?"),
    )
    assert texts == [TALE]
    assert len(re.findall("^answer ", out, re.MULTILINE)) == 2
    for line in ("written to tale-page-1.png", "written to tale.safetensors", "/quit "):
        assert line in out
    for told in (
        "nothing was asked yet",
        "name one of the pages 1 to ",
        "there is no /nonsense",
        "ends with .safetensors",
    ):
        assert told in errors
    assert Image.open("tale-page-1.png").size == (168, 168)
    prompts = [int(found) for found in re.findall(r"^prompt +(\d+) tokens", out, re.MULTILINE)]
    assert prompts[2] > prompts[1] + 10  # what was said before is in it
    again, _ = chat(checkpoint, tmp_path / "tale.safetensors", "Which number?")
    said = [re.findall("^answer +(.*)", one, re.MULTILINE)[0] for one in (out, again)]
    assert said[0] == said[1]


def test_a_chat_may_look_closer(checkpoint: Path, document: str) -> None:
    arguments = ["chat", str(document), "--model", str(checkpoint), "--max-new-tokens", "3"]
    for way, shown in (
        ("tokens", r"spans by policy 'attention'"),
        ("larger", r"looked at +\d passages, drawn larger"),
    ):
        asked = CliRunner().invoke(app, [*arguments, "--look-closer", way], input="Which number?\n")
        assert asked.exit_code == 0 and len(re.findall(shown, asked.stdout)) >= 1, asked.output
    for given, says in (("nearer", "is not one of tokens, larger"), ("tokens", "--text-policy bm25 says otherwise")):
        refused = CliRunner().invoke(
            app, [*arguments, "--look-closer", given, "--text-policy", "bm25"], env={"COLUMNS": "300"}
        )
        assert refused.exit_code == 2 and says in refused.output.replace("\n", " ")
