# SPDX-License-Identifier: Apache-2.0
"""The `hybridctx` command: what it prints, what it writes, how it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from document_samples import RED_SQUARE, pdf_file
from PIL import Image
from typer.testing import CliRunner, Result

from transformers_hybridctx import HybridCtxProcessor, PageRenderer, RenderConfig, cli
from transformers_hybridctx.planning.context_planning import TEXT_POLICIES

TEXT = (
    "It was the best of times, it was the worst of times. " * 6
    + "The special magic number for green-lemur is: 4821930. "
    + "It was the age of wisdom, it was the age of foolishness. " * 6
)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("documents") / "tale.txt"
    path.write_text(TEXT)
    return str(path)


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def refused(*arguments: Any) -> str:
    """What is printed where a command is refused: one line, to stderr, with exit code 2."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr), result.stderr
    return result.stderr.removeprefix("error: ").rstrip()


# Help


def test_help_is_there_before_torch_is() -> None:
    code = """
import sys
from transformers_hybridctx.cli.app import app
try:
    app(["--help"])
finally:
    assert not {"torch", "transformers", "numpy"} & sys.modules.keys()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for command in ("ask", "plan", "render", "evaluate", "train"):
        assert re.search(rf"\b{command}\b", result.stdout)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (["ask"], "--question --model --budget --visual-share --text-policy --max-new-tokens --evidence-dir --json"),
        (["plan"], "--question --model --budget --visual-share"),
        (["render"], "--out --config --scale"),
        (["evaluate"], "--model --num-tokens --budget-share --examples --seed --out"),
        (["train"], "corpus stage pack"),
        (["train", "stage"], "--corpus --runs --steps --learning-rate --threads"),
    ],
)
def test_every_option_says_what_it_is(command: list[str], options: str) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    for option in options.split():
        (line,) = (line for line in lines if re.match(rf"│[ *]+{option} ", line))
        words = re.sub(r"<[^>]*>|\[[^]]*\]|--?[\w-]+|[│*]", "", line).split()
        assert len(words) >= 2, line


# hybridctx ask


def ask(checkpoint: Path, document: Any, *arguments: Any) -> Result:
    return run("ask", document, "--model", checkpoint, "--max-new-tokens", 3, *arguments)


def test_ask_prints_answer_evidence_plan_and_times_of_each_question(checkpoint: Path, document: str) -> None:
    result = ask(checkpoint, document, "-q", "Which number?", "--question", "Which age?")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    first, second, end = re.split("─{20,}\n", result.stdout)[1:]
    for question, block in (("Which number?", first), ("Which age?", second)):
        rows = [line.split(None, 1) for line in block.splitlines() if not line.startswith(" ")]
        assert [label for label, _ in rows][:4] == ["question", "answer", "score", "evidence"]
        assert [label for label, _ in rows][-7:] == [
            *("document", "pages", "copied", "prompt", "compression"),
            *("left", "seconds"),
        ]
        found = dict(rows)
        assert found["question"] == question
        assert found["document"].startswith(f"{len(TEXT):,} characters, ")
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
    assert answers[0].keys() == {"question", "answer", "reasoning", "score", "evidence", "usage", "plan", "pictures"}
    assert answers[0]["usage"]["new_tokens"] <= 3
    assert answers[0]["plan"]["document_characters"] == len(TEXT)
    for span in answers[0]["plan"]["spans"]:
        assert 0 <= span["start"] < span["end"] <= len(TEXT)


def test_ask_reads_the_document_once(checkpoint: Path, document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    typeset, texts = PageRenderer.typeset, []
    monkeypatch.setattr(PageRenderer, "typeset", lambda self, text: texts.append(text) or typeset(self, text))
    assert ask(checkpoint, document, *("-q", "One?") * 5).exit_code == 0
    assert texts == [TEXT]


def test_ask_shows_evidence_in_its_context_and_marks_its_page(
    processor: HybridCtxProcessor, document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers_hybridctx.grounding.evidence import find_evidence, mark_evidence

    class Knows:
        """A pipeline whose model knows the answer."""

        lay_out = staticmethod(processor.read_document)

        def __call__(self, question: list[str], document: Any, **kwargs: Any) -> list[dict[str, Any]]:
            plan = processor.plan(document, question[0])
            evidence = find_evidence(plan, "4821930", question[0])
            usage = {"seconds": {"plan": 0.0}}
            pages = mark_evidence(plan, evidence)
            found = {"evidence": evidence, "usage": usage, "plan": plan, "pages": pages}
            return [{"answer": "4821930", "reasoning": "the lemur's", "score": 1.0, **found}]

    monkeypatch.setattr(cli, "_pipeline", lambda model: Knows())
    result = run("ask", document, "-q", "Number for green-lemur?", "--evidence-dir", tmp_path / "new" / "folder")
    assert result.exit_code == 0, result.output
    start = TEXT.index("4821930")
    page = processor.read_document(TEXT).page_of(start)
    place = f"evidence     page {page + 1}, characters {start} to {start + 7}, box ("
    assert place in result.stdout
    assert "reasoning    the lemur's\nanswer       4821930\n" in result.stdout
    assert re.search(r"\n +….*magic number for green-lemur is: 4821930\. It was the age of .*…\n", result.stdout)
    (picture,) = (tmp_path / "new" / "folder").iterdir()
    assert picture.name == f"question-1-page-{page + 1}.png"
    assert f"picture      {picture}\n" in result.stdout
    assert len(np.unique(np.asarray(Image.open(picture)).reshape(-1, 3), axis=0)) > 2


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
    assert "does not end with .safetensors" in refused("read", document, tmp_path / "tale", "--model", checkpoint)
    assert "another checkpoint" in refused("ask", out, "-q", "What?")


def test_heads_prints_and_writes_what_each_head_finds(checkpoint: Path, tmp_path: Path) -> None:
    haystack = tmp_path / "haystack.txt"
    haystack.write_text("It was the best of times, it was the worst of times. " * 40)
    out = tmp_path / "heads.json"
    result = run("heads", haystack, "--model", checkpoint, "--num-tokens", 150, "--examples", 2, "--out", out)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert len(found["heads"]) == 8
    assert all(0 < head["mean_reciprocal_rank"] <= 1 for head in found["heads"])
    assert found["bm25"]["hit_at_4"] == 1
    for name in ("all heads", "bm25", "chance", "layer"):
        assert name in result.stdout


def test_ask_says_what_a_pdf_leaves_out(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf_file(["Text.", RED_SQUARE]))
    result = ask(checkpoint, tmp_path / "a.pdf", "-q", "What?", "--json")
    assert re.fullmatch(
        r"warning: .*a.pdf: pages 2 hold pictures and no text, and are left out; [^\n]+\n", result.stderr
    )
    assert len(json.loads(result.stdout)) == 1


def test_words_in_brackets_are_words(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("[bold]x[/bold] [/] [red]")
    result = ask(checkpoint, tmp_path / "a.txt", "-q", "[/what] is [red]?")
    assert result.exit_code == 0, result.output
    assert "[/what] is [red]?" in result.stdout
    assert "no file [/none].txt" in refused("ask", "[/none].txt", "-q", "?")


# hybridctx plan


def test_plan_tells_each_policys_cost_to_the_token(checkpoint: Path, document: str) -> None:
    processor = HybridCtxProcessor.from_pretrained(checkpoint)
    limits = {"max_context_tokens": 240, "visual_share": 0.5}
    result = run("plan", document, "-q", "Which?", "--model", checkpoint, "--budget", 240, "--visual-share", 0.5)
    assert result.exit_code == 0, result.output
    assert f"document     {len(TEXT):,} characters, " in result.stdout
    for policy in sorted(TEXT_POLICIES.keys() - {"full", "attention"}):
        plan = processor.plan(TEXT, "Which?", budget=limits, text_policy=policy)
        row = re.search(rf"^{policy} +(\d.*?) *$", result.stdout, re.MULTILINE)
        assert row is not None, policy
        assert row[1].split() == [
            *(str(plan.total_tokens), str(plan.visual_tokens), str(plan.text_tokens), str(len(plan.spans))),
            *(f"{plan.scale:g}", f"{plan.compression_ratio:.2f}", str(plan.omitted_characters)),
        ]
    (note,) = re.findall(
        r"^full +cannot be met; the smallest --budget that works is ([\d,]+)", result.stdout, re.MULTILINE
    )
    smallest = int(note.replace(",", ""))
    assert processor.plan(TEXT, "Which?", {**limits, "max_context_tokens": smallest}, "full").total_tokens <= smallest


def test_plan_lists_what_cannot_be_met_or_makes_no_sense(checkpoint: Path, document: str) -> None:
    result = run("plan", document, "--model", checkpoint, "--budget", 3)
    assert result.exit_code == 0, result.output
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


# hybridctx render


@pytest.fixture
def glyph_config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"page-size": "168,168", "dpi": 72, "font-size": 10, "line-height": 12}))
    return path


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_render_writes_pages_and_where_each_character_stands(
    glyph_config: Path, document: str, tmp_path: Path, scale: float
) -> None:
    out = tmp_path / "pages"
    result = run("render", document, "--out", out, "--config", glyph_config, "--scale", scale)
    assert result.exit_code == 0, result.output
    assert str(out) in result.stdout
    rendered = PageRenderer(RenderConfig.from_glyph(glyph_config)).render(TEXT, scale)
    files = sorted(out.glob("*.png"))
    assert [path.name for path in files] == [f"page-{page + 1:04}.png" for page in range(rendered.num_pages)]
    for path, page in zip(files, rendered.pages, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), page)
    layout = json.loads((out / "layout.json").read_text())
    assert layout["pages"] == [list(page.shape[:2]) for page in rendered.pages]
    assert RenderConfig.from_dict(layout["config"]) == rendered.config
    assert layout["undrawable"] == []
    assert len(layout["lines"]) == len(rendered.lines)
    for line in layout["lines"]:
        if line["start"] < line["end"]:
            ((page, box),) = rendered.boxes(line["start"], line["end"])
            assert page == line["page"]
            assert line["box"][1] <= box[1] + 1
            assert box[3] <= line["box"][3] + 1


def test_render_counts_what_no_font_has(glyph_config: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\x01b")
    result = run("render", tmp_path / "a.txt", "--out", tmp_path / "out", "--config", glyph_config)
    assert "undrawable   1 characters" in result.stdout
    assert json.loads((tmp_path / "out" / "layout.json").read_text())["undrawable"] == [[1, "U+0001"]]


def test_pictures_are_not_rendered_again(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "page.png")
    assert "holds pictures already" in refused("render", tmp_path / "page.png", "--out", tmp_path)


# Errors


@pytest.mark.parametrize("command", [("ask", "-q", "What?"), ("plan",), ("render", "--out", "unused")])
def test_a_file_that_cannot_be_read_is_refused_before_a_model_is_loaded(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_pipeline", lambda model: pytest.fail("a model was loaded"))
    monkeypatch.setattr(cli, "_processor", lambda model: pytest.fail("a processor was loaded"))
    (tmp_path / "empty.txt").touch()
    assert refused(*command, tmp_path / "none.txt") == f"there is no file {tmp_path}/none.txt"
    assert refused(*command, tmp_path / "empty.txt") == f"empty document: {tmp_path}/empty.txt has no bytes"
    assert refused(*command, tmp_path) == f"{tmp_path} is a folder; name one file in it"


def test_what_a_request_gets_wrong_is_told_in_one_line(checkpoint: Path, document: str) -> None:
    assert "unknown text policy '[best]'" in refused_ask(checkpoint, document, "-q", "?", "--text-policy", "[best]")
    assert "the smallest that works is" in refused_ask(checkpoint, document, "-q", "?", "--budget", 3)
    assert "empty question" in refused_ask(checkpoint, document, "-q", " ")
    assert "no such folder" in refused("ask", document, "-q", "?", "--model", "./nowhere")
    assert "no such folder" in refused("plan", document, "--model", "/nowhere")


def refused_ask(checkpoint: Path, document: str, *arguments: Any) -> str:
    return refused("ask", document, "--model", checkpoint, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("ask", "a.txt"),
        ("ask", "a.txt", "-q", "?", "--visual-share", 2),
        ("ask", "a.txt", "-q", "?", "--max-new-tokens", 0),
        ("plan", "a.txt", "--budget", 0),
        ("render", "a.txt"),
        ("nonsense",),
    ],
)
def test_options_out_of_bounds_are_refused(arguments: tuple[Any, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_package_that_is_missing_is_named_with_the_command_that_brings_it(
    document: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(model: Any) -> None:
        raise ModuleNotFoundError("No module named 'wonderwords'", name="wonderwords")

    monkeypatch.setattr(cli, "_pipeline", missing)
    assert refused("evaluate", document) == (
        "this needs the package wonderwords: pip install 'transformers-hybridctx[evaluate]'"
    )


# hybridctx evaluate and train


def test_evaluate_prints_and_writes_the_scores_of_each_context(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers_hybridctx.evaluation import needle_benchmark

    asked = []

    def benchmark(pipe: Any, haystack: str, *options: Any) -> list[dict[str, Any]]:
        asked.append((pipe, haystack, *options))
        scores = dict.fromkeys(needle_benchmark.TASKS, 0.25)
        row = {"num_tokens": 64, "budget": 32, "context": "pages only", "exact_match": scores, "prompt_tokens": 30.4}
        return [row]

    monkeypatch.setattr(needle_benchmark, "run_needle_benchmark", benchmark)
    monkeypatch.setattr(cli, "_pipeline", lambda model: f"pipeline of {model}")
    out = tmp_path / "new" / "scores.json"
    result = run("evaluate", document, "--model", "m", "--num-tokens", 64, "--examples", 2, "--out", out)
    assert result.exit_code == 0, result.output
    assert asked == [("pipeline of m", TEXT, [64], 0.5, 2, 0)]
    assert result.stdout.count("25%") == len(needle_benchmark.TASKS)
    assert json.loads(out.read_text())[0]["context"] == "pages only"


def test_an_unknown_stage_is_refused(tmp_path: Path) -> None:
    arguments = ("--corpus", tmp_path, "--runs", tmp_path, "--steps", 10)
    assert refused("train", "stage", "sleep", *arguments).startswith("unknown stage 'sleep'; the stages are recall, ")
