# SPDX-License-Identifier: Apache-2.0
"""`hybridctx plan`: what each text policy would cost."""

from __future__ import annotations

import re
from pathlib import Path

from command_line import TALE, refused, run
from PIL import Image

from transformers_hybridctx import HybridCtxProcessor
from transformers_hybridctx.planning.policies.registry import TEXT_POLICIES


def test_plan_tells_each_policys_cost_to_the_token(checkpoint: Path, document: str) -> None:
    processor = HybridCtxProcessor.from_pretrained(checkpoint)
    limits = {"max_context_tokens": 240, "visual_share": 0.5}
    result = run("plan", document, "-q", "Which?", "--model", checkpoint, "--budget", 240, "--visual-share", 0.5)
    assert result.exit_code == 0, result.output
    assert f"document     {len(TALE):,} characters, " in result.stdout
    for policy in sorted(TEXT_POLICIES.keys() - {"full", "attention"}):
        plan = processor.plan(TALE, "Which?", budget=limits, text_policy=policy)
        row = re.search(rf"^{policy} +(\d.*?) *$", result.stdout, re.MULTILINE)
        assert row is not None, policy
        assert row[1].split() == [
            *(str(plan.total_tokens), str(plan.visual_tokens), str(plan.text_tokens), str(len(plan.spans))),
            *(f"{plan.scale:g}", f"{plan.compression_ratio:.2f}"),
            f"{len(TALE) / (plan.visual_tokens + plan.text_tokens):.2f}",
            str(plan.omitted_characters),
        ]
    (note,) = re.findall(
        r"^full +cannot be met; the smallest --budget that works is ([\d,]+)", result.stdout, re.MULTILINE
    )
    smallest = int(note.replace(",", ""))
    assert processor.plan(TALE, "Which?", {**limits, "max_context_tokens": smallest}, "full").total_tokens <= smallest


def test_plan_lists_what_cannot_be_met_or_makes_no_sense(checkpoint: Path, document: str) -> None:
    result = run("plan", document, "--model", checkpoint, "--budget", 3)
    assert result.exit_code == 1, result.output
    for policy in TEXT_POLICIES:
        assert re.search(rf"^{policy} +–", result.stdout, re.MULTILINE)
        assert re.search(
            rf"^{policy} +(cannot be met; the smallest|the policy '{policy}')", result.stdout, re.MULTILINE
        )


def test_plan_takes_pictures(checkpoint: Path, tmp_path: Path) -> None:
    Image.new("L", (168, 168), 255).save(tmp_path / "page.png")
    result = run("plan", tmp_path / "page.png", "--model", checkpoint)
    assert result.exit_code == 0, result.output
    assert re.search(r"^none .* 36 .* unknown", result.stdout, re.MULTILINE)


def test_a_text_of_another_encoding_is_read_by_its_name(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Привет, room 42".encode("koi8-r"))
    result = run("plan", tmp_path / "a.txt", "--model", checkpoint, "--encoding", "koi8-r")
    assert result.exit_code == 0, result.output
    assert "document     15 characters" in result.stdout
    assert "--encoding" in refused("plan", tmp_path / "a.txt", "--model", checkpoint, "--encoding", "koi99")
