# SPDX-License-Identifier: Apache-2.0
"""The training of hybridctx-tiny in miniature: its data is what it says, its stages run, stop and go on."""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedTokenizerFast
from typer.testing import CliRunner

from recipes.hybridctx_tiny.__main__ import app
from recipes.hybridctx_tiny.batches import (
    CHARACTERS,
    IGNORE,
    FuseBatches,
    PageReader,
    ReadBatches,
    RecallBatches,
    SequenceEncoder,
)
from recipes.hybridctx_tiny.reference import RENDER_CONFIG, config_fields, initialise, train_tokenizer
from recipes.hybridctx_tiny.run import pack_checkpoint, reference_tokenizer, train_stage
from recipes.hybridctx_tiny.tasks import Document, Question, TaskMixture, draw_passages
from transformers_hybridctx import HybridCtxConfig, HybridCtxForCausalLM

SENTENCES = (
    "The ship came in at noon. Nobody had seen it before! Was it hers? She said that 1814 had been a better year. "
)
PROSE = {
    "novel": SENTENCES * 200,
    "factbook_atlantis": "\n".join(f"Atlantis - Field {n} - total: {n * 37} sq km" for n in range(300)),
}


@pytest.fixture(scope="module")
def mixture() -> TaskMixture:
    return TaskMixture(PROSE)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(PROSE.values())


def test_a_document_holds_the_answers_to_its_questions(mixture: TaskMixture) -> None:
    rng = Random(0)
    for _ in range(200):
        document = mixture.draw(rng, rng.randint(80, 2000), rng.randint(1, 8))
        assert document.questions
        for question in document.questions:
            shown = " ".join(document.text[start:end] for start, end in question.places)
            for part in (*question.answer.split(", "), *question.quotes):
                assert part in " ".join(shown.split())


def test_passages_hold_what_the_questions_need_and_do_not_overlap(mixture: TaskMixture) -> None:
    rng = Random(1)
    for _ in range(100):
        document = mixture.draw(rng, 1500, 5)
        passages = draw_passages(rng, document, 400)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(passages))
        for question in document.questions:
            for start, end in question.places:
                covered = sum(max(0, min(end, b) - max(start, a)) for a, b in passages)
                assert covered >= len(document.text[start:end].rstrip()) - document.text[start:end].count("\n\n") * 2


@pytest.mark.parametrize("batches", [RecallBatches, ReadBatches, FuseBatches])
def test_a_batch_depends_on_its_step_alone(
    batches: type, mixture: TaskMixture, tokenizer: PreTrainedTokenizerFast
) -> None:
    one, other = (batches(tokenizer, mixture, steps=50, tokens_per_batch=400) for _ in range(2))
    other[7]
    for name, tensor in one[31].items():
        assert torch.equal(tensor, other[31][name]), name


def test_only_quotes_and_answers_carry_loss(tokenizer: PreTrainedTokenizerFast) -> None:
    question = Question("What is the code of Ada?", "4471", ((0, 24),), ("Ada is 4471",))
    document = Document("The code of Ada is 4471.", (question,))
    ids, labels = SequenceEncoder(tokenizer)(document, [(0, 24)], [(0, 24)], [2])
    told = [token for token in labels if token != IGNORE]
    assert tokenizer.decode(told) == "<think>Ada is 4471</think>4471<|user|>"
    assert ids.count(tokenizer.convert_tokens_to_ids("<|image|>")) == 2


def test_training_sequences_are_the_prompts_that_the_processor_writes(tmp_path: Path, mixture: TaskMixture) -> None:
    tokenizer = reference_tokenizer(tmp_path, PROSE, mixture)
    model = HybridCtxForCausalLM(HybridCtxConfig(**config_fields(tokenizer)))
    model.save_pretrained(tmp_path / "weights")
    pack_checkpoint(tmp_path / "weights", tmp_path, tmp_path / "packed")
    processor = AutoProcessor.from_pretrained(tmp_path / "packed")
    text, question = SENTENCES * 30, "Which year was better?"
    features, plan = processor(document=text, question=question, return_plan=True)
    drawn = PageReader().draw(text)
    pages = [drawn.page_span(page) for page in range(drawn.num_pages)]
    spans = [(span.start, span.end) for span in plan.spans]
    document = Document(text, (Question(question, "1814", ()),))
    ids, _ = SequenceEncoder(tokenizer)(document, spans, pages, list(plan.page_tokens))
    prompt = features["input_ids"][0]
    assert spans
    assert ids[: len(prompt)] == prompt


def test_reading_labels_say_what_each_visual_token_shows() -> None:
    text = "".join(f"{n:06}" for n in range(16 * 3))  # six digits a cell row, so each token shows whole numbers
    drawn = PageReader().draw(text)
    labels = PageReader().characters(drawn)
    assert labels.shape == (16, 18)
    shown = ["".join(CHARACTERS[index] for index in row) for row in labels.tolist()]
    assert shown[0] == "000000" + "000016" + "000032"
    assert shown[15] == "000015" + "000031" + "000047"
    assert RENDER_CONFIG["newline_markup"] in "".join(
        CHARACTERS[index] for index in PageReader().characters(PageReader().draw("a\nb"))[0].tolist()
    )


def test_initial_heads_look_back_and_find_what_followed(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    fields = config_fields(tokenizer)
    model = HybridCtxForCausalLM(HybridCtxConfig(**fields, attn_implementation="eager")).eval()
    initialise(model)
    model.tie_weights()
    half = torch.randint(20, len(tokenizer), (4, 30))
    with torch.no_grad():
        attentions = model(input_ids=torch.cat([half, half], 1), output_attentions=True).attentions
    at = torch.arange(32, 59)
    for head, distance in enumerate((1, 2)):
        assert attentions[0][:, head, at, at - distance].mean() > 0.9
    uniform = 1 / 45
    assert attentions[1][:, 0, at, at - 29].mean() > 5 * uniform


def test_a_stage_runs_stops_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, text in PROSE.items():
        (corpus / f"{name}.txt").write_text(text)
    for stage in ("recall", "read", "fuse"):
        train_stage(stage, corpus, tmp_path, steps=2, tokens_per_batch=300)
    weights = load_file(tmp_path / "fuse" / "model.safetensors")
    assert any(name.startswith("characters.") for name in weights)
    train_stage("fuse", corpus, tmp_path, steps=3, tokens_per_batch=300)
    assert (tmp_path / "fuse" / "checkpoint-3").exists()
    moved = load_file(tmp_path / "fuse" / "model.safetensors")
    assert any(not torch.equal(weights[name], moved[name]) for name in weights)
    pack_checkpoint(tmp_path / "fuse", tmp_path, tmp_path / "packed")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "packed")
    assert model.dtype == torch.float32
    assert (
        load_file(tmp_path / "packed" / "model.safetensors")["model.visual.downsample.weight"].dtype == torch.float16
    )


def test_fuse_before_the_other_stages_is_refused(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, text in PROSE.items():
        (corpus / f"{name}.txt").write_text(text)
    with pytest.raises(FileNotFoundError, match="recall"):
        train_stage("fuse", corpus, tmp_path, steps=2)


def test_an_unknown_stage_is_refused(tmp_path: Path) -> None:
    options = ["--corpus", str(tmp_path), "--runs", str(tmp_path), "--steps", "10"]
    result = CliRunner().invoke(app, ["stage", "sleep", *options])
    assert result.exit_code == 2
    assert "unknown stage 'sleep'; the stages are recall, " in result.stderr
