# SPDX-License-Identifier: Apache-2.0
"""The training of hybridctx-tiny in miniature: its data is what it says, its stages run, stop and go on."""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedTokenizerFast, Trainer
from typer.testing import CliRunner

from recipes.hybridctx_tiny.__main__ import app
from recipes.hybridctx_tiny.answer_batches import (
    BEGINNING_WEIGHT,
    CHOOSING_WEIGHT,
    AnswerBatches,
    RecordsOfCountries,
)
from recipes.hybridctx_tiny.batches import IGNORE, RecallBatches, SequenceEncoder
from recipes.hybridctx_tiny.broad_batches import BroadBatches
from recipes.hybridctx_tiny.forms import draw_form
from recipes.hybridctx_tiny.invented_records import InventedRecords
from recipes.hybridctx_tiny.long_batches import LongBatches
from recipes.hybridctx_tiny.looking_batches import LookingBatches
from recipes.hybridctx_tiny.pages import CHARACTERS, PageReader, ReadBatches
from recipes.hybridctx_tiny.phrases import PHRASES
from recipes.hybridctx_tiny.reference import config_fields, initialise, train_tokenizer
from recipes.hybridctx_tiny.run import append_layers, pack_checkpoint, reference_tokenizer, train_stage
from recipes.hybridctx_tiny.stages import FETCHING_HEADS, HybridCtxForReading
from recipes.hybridctx_tiny.tasks import Document, Question, TaskMixture, draw_passages
from recipes.hybridctx_tiny.wordings import Sentences
from transformers_hybridctx import HybridCtxConfig, HybridCtxForCausalLM
from transformers_hybridctx.bundled_checkpoint import BUNDLED_CHECKPOINT

SENTENCES = (
    "The ship came in at noon. Nobody had seen it before! Was it hers? She said that 1814 had been a better year. "
)
PROSE = {
    "novel": SENTENCES * 200,
} | {
    f"factbook_{country.lower()}": f"{country.upper()}\n\n{country}: Geography\n"
    + "\n".join(f"{country} - Field {n} - total: {n * factor} sq km" for n in range(300))
    for country, factor in (("Atlantis", 37), ("Lemuria", 41), ("Mu", 43), ("Thule", 47), ("Ys", 53))
}


@pytest.fixture(scope="module")
def mixture() -> TaskMixture:
    return TaskMixture(PROSE)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(PROSE.values())


@pytest.fixture(scope="module")
def tokenizer_of_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    reference_tokenizer(folder, PROSE)
    return folder / "tokenizer"


@pytest.fixture
def runs(tokenizer_of_runs: Path, tmp_path: Path) -> Path:
    """A folder of runs that have their tokenizer, which takes a second or two to train."""
    shutil.copytree(tokenizer_of_runs, tmp_path / "tokenizer")
    return tmp_path


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


@pytest.mark.parametrize(
    "batches", [RecallBatches, ReadBatches, AnswerBatches, LongBatches, BroadBatches, LookingBatches]
)
def test_a_batch_depends_on_its_step_alone(batches: type, tokenizer: PreTrainedTokenizerFast) -> None:
    one, other = (batches(tokenizer, PROSE, steps=50, tokens_per_batch=400) for _ in range(2))
    other[7]
    for name, value in one[31].items():
        assert torch.equal(value, other[31][name]) if torch.is_tensor(value) else value == other[31][name], name


def test_fields_are_asked_for_that_other_countries_have_too() -> None:
    document, decoys = RecordsOfCountries(PROSE).draw(Random(3), 1500, 4)
    assert decoys
    alike = [document.text[slice(*place)] for place in decoys]
    for question in document.questions:
        (place,) = question.places
        country, label, value = re.match(r"(\w+) - (.+): (.+)", document.text[slice(*place)]).groups()
        assert question.answer == value and country in question.text
        assert not any(line.startswith(f"{country} - {label}:") for line in alike)


def test_invented_records_have_fields_that_are_asked_for_whole() -> None:
    records = InventedRecords(PROSE)
    drawn = [records.draw(Random(seed), 1500, 4)[0] for seed in range(12)]
    invented = [document for document in drawn if "Geography" not in document.text]
    assert 2 < len(invented) < 10
    for document in invented:
        for question in document.questions:
            (line,) = (document.text[slice(*place)] for place in question.places)
            assert line.endswith(f": {question.answer}") and line == question.quotes[0]


@pytest.mark.parametrize("seed", range(8))
def test_a_form_is_asked_for_what_stands_behind_a_label(seed: int) -> None:
    document = draw_form(Random(seed))
    (question,) = document.questions
    (line,) = (document.text[slice(*place)] for place in question.places)
    assert line in document.text.split("\n") and question.quotes[0].split() == line.strip("-*| ").split()
    assert question.quotes[0].endswith(question.answer) and question.quotes[0] != question.answer


def test_what_chooses_between_values_weighs_most(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = AnswerBatches(tokenizer, PROSE, steps=9, kinds={"records": 1.0}, tokens_per_batch=900)[2]
    ids, weights = batch["input_ids"][0], batch["weights"][0]
    heavy = tokenizer.decode(ids[weights == CHOOSING_WEIGHT])
    assert heavy and not set(heavy) & set("ABCDEFGHIJKLMNOPQRSTUVWXYZ-"), "values only, no key"
    begins = torch.nonzero(ids == tokenizer.convert_tokens_to_ids("<think>"))[:, 0] + 1
    assert len(begins) and (weights[begins] == BEGINNING_WEIGHT).all()
    closes, users = (
        torch.nonzero(ids == id)[:, 0] for id in tokenizer.convert_tokens_to_ids(["</think>", "<|user|>"])
    )
    assert (weights[closes + 1] == BEGINNING_WEIGHT).all() and (weights[users] == BEGINNING_WEIGHT).all()
    assert batch["kind"] == "records" and "pixel_values" in batch


def test_pages_alone_hold_no_text_of_the_document(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = AnswerBatches(tokenizer, PROSE, steps=9, kinds={"choice": 1.0}, tokens_per_batch=900)[1]
    assert "[page" not in tokenizer.decode(batch["input_ids"][0])
    assert (batch["weights"] > 1).any()


def said(batch: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> list[tuple[str, list[str], str]]:
    """Prompt, quotations and answer of each row."""
    rows = []
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        text = tokenizer.decode(labels[labels != IGNORE])
        quotes, answer = re.fullmatch(r"<think>(.*)</think>(.*)<\|user\|>", text, re.DOTALL).groups()
        start = int((labels != IGNORE).nonzero()[0])
        rows.append((tokenizer.decode(ids[:start]), quotes.split("\n"), answer))
    return rows


def test_all_values_are_quoted_each_where_it_stands(tokenizer: PreTrainedTokenizerFast) -> None:
    batches = BroadBatches(tokenizer, PROSE, steps=9, kinds={"several_text": 1.0}, tokens_per_batch=3000)
    rows = [row for step in range(6) for row in said(batches[step], tokenizer)]
    assert any(len(quotes) > 2 for _, quotes, _ in rows)
    for prompt, quotes, answer in rows:
        assert answer == ", ".join(quote.split(" is: ")[1] for quote in quotes)
        assert all(f"for{quote}." in prompt for quote in quotes) and len(set(quotes)) == len(quotes)
        keys = [quote.split(" is: ")[0] for quote in quotes]
        asked = prompt[prompt.rindex("magic ") :]
        places = [asked.index(key) for key in keys]
        assert places == sorted(places) and prompt.count(f"for{keys[0]} is:") == keys.count(keys[0])


@pytest.mark.parametrize("kind", ["chains", "chains_text"])
def test_the_second_step_goes_on_from_where_the_first_led(kind: str, tokenizer: PreTrainedTokenizerFast) -> None:
    batches = BroadBatches(tokenizer, PROSE, steps=9, kinds={kind: 1.0}, tokens_per_batch=3000)
    rows = [row for step in range(8) for row in said(batches[step], tokenizer)]
    copied = 0
    for prompt, (first, second), answer in rows:
        name = next(second[:end] for end in range(len(second), 3, -1) if first.endswith(second[:end]))
        assert len(name) > 3 and second.endswith(answer)
        assert first in prompt
        copied += second in prompt
    assert copied == len(rows) if kind == "chains_text" else copied < len(rows)


def test_phrases_are_answered_by_what_they_quote(tokenizer: PreTrainedTokenizerFast) -> None:
    batches = BroadBatches(tokenizer, PROSE, steps=9, kinds={"phrases": 1.0}, tokens_per_batch=2000)
    rows = [row for step in range(9) for row in said(batches[step], tokenizer)]
    assert all(len(quotes) == 1 and answer in quotes[0] for _, quotes, answer in rows)
    assert any(
        answer in prompt.splitlines()[-2] or quotes[0].startswith(f" {answer}") for prompt, quotes, answer in rows
    )


def test_a_sentence_and_its_question_are_of_the_same_things() -> None:
    sentences = Sentences()
    rng = Random(0)
    drawn = [sentences.draw(rng) for _ in range(2000)]
    assert len(set(drawn)) > 1000
    for sentence, question in drawn:
        assert sentence.count("{}") == 1 and not set("<>~/") & set(sentence + question), sentence
        assert question.endswith("?") and question[0].isupper()
    assert not {one for one, _ in PHRASES} & sentences.all()


@pytest.mark.parametrize("kind", ["records", "passages", "facts"])
def test_questions_on_a_document_that_is_read_once_have_the_loss_of_whole_prompts(
    kind: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    sizes = {"num_chars": (600, 900), "tokens_per_batch": 1200}
    batch = LongBatches(tokenizer, PROSE, steps=9, kinds={kind: 1.0}, **sizes)[3]
    assert len(batch["input_ids"]) > 1 and batch["kind"] == f"long_{kind}"
    torch.manual_seed(0)
    model = HybridCtxForReading(HybridCtxConfig(**config_fields(tokenizer))).eval()
    shared = batch["shared_ids"].expand(len(batch["input_ids"]), -1)
    assert tokenizer.decode(shared[0]).startswith("[gMASK]<sop><|user|>")
    assert bool((shared == model.config.image_token_id).any()) == (kind != "passages")

    def whole(name: str, before: torch.Tensor) -> torch.Tensor:
        return torch.cat([before, batch[name]], dim=1)

    prompt = {
        "input_ids": whole("input_ids", shared),
        "labels": whole("labels", torch.full_like(shared, IGNORE)),
        "attention_mask": whole("attention_mask", torch.ones_like(shared)),
        "weights": whole("weights", torch.ones(shared.shape)),
    }
    prompt["mm_token_type_ids"] = (prompt["input_ids"] == model.config.image_token_id).int()
    for name in ("pixel_values", "image_grid_thw"):
        if name in batch:
            prompt[name] = torch.cat([batch[name]] * len(shared))
    with torch.no_grad():
        expected = model(**prompt)["loss"]
    found = model(**batch)["loss"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    found.backward()
    assert model.model.language_model.layers[0].self_attn.q_proj.weight.grad is not None
    assert model.model.visual.downsample.weight.grad is None


def test_only_quotes_and_answers_carry_loss(tokenizer: PreTrainedTokenizerFast) -> None:
    question = Question("What is the code of Ada?", "4471", ((0, 24),), ("Ada is 4471",))
    document = Document("The code of Ada is 4471.", (question,))
    ids, labels = SequenceEncoder(tokenizer)(document, [(0, 24)], [(0, 24)], [2])
    told = [token for token in labels if token != IGNORE]
    assert tokenizer.decode(told) == "<think>Ada is 4471</think>4471<|user|>"
    assert ids.count(tokenizer.convert_tokens_to_ids("<|image|>")) == 2


def test_training_sequences_are_the_prompts_that_the_processor_writes(runs: Path) -> None:
    tokenizer = reference_tokenizer(runs, PROSE)
    model = HybridCtxForCausalLM(HybridCtxConfig(**config_fields(tokenizer)))
    model.save_pretrained(runs / "weights")
    pack_checkpoint(runs / "weights", runs, runs / "packed")
    processor = AutoProcessor.from_pretrained(runs / "packed")
    text, question = SENTENCES * 30, "Which year was better?"
    features, plan = processor(document=text, question=question, return_plan=True)
    reader = PageReader(tokenizer)
    drawn = reader.draw(text)
    spans = [(span.start, span.end) for span in plan.spans]
    document = Document(text, (Question(question, "1814", ()),))
    ids, _ = SequenceEncoder(tokenizer)(document, spans, reader.spans(drawn), reader.tokens(drawn))
    prompt = features["input_ids"][0]
    assert spans
    assert ids[: len(prompt)] == prompt
    assert reader.tokens(drawn) == list(plan.page_tokens)
    assert torch.equal(reader.pixels(drawn.pages)["pixel_values"], torch.as_tensor(features["pixel_values"]))


def test_each_quoted_token_is_looked_up_in_the_cell_that_shows_it(tokenizer: PreTrainedTokenizerFast) -> None:
    batches = LookingBatches(tokenizer, PROSE, steps=20, broad=0.0, page_tokens=900)
    reader = PageReader(tokenizer)
    seen = 0
    for document, labels in ((batches[step], batches[step]["labels"]) for step in range(20)):
        rows, queries, keys = document["looks"].T
        assert (document["input_ids"][rows, keys] == tokenizer.convert_tokens_to_ids("<|image|>")).all()
        assert (labels[rows, queries + 1] != IGNORE).all()
        assert (document["weights"][labels == IGNORE] == 0).all()
        seen += len(rows)
    assert seen > 1000
    text = "Her number was 4711.\nOf the ships that lay in the harbour none was hers, and none would be."
    drawn = reader.draw(text)
    shown = ["".join(CHARACTERS[one] for one in row) for row in reader.characters(drawn).tolist()]
    for number, cell in enumerate(reader.visual_tokens(drawn)):
        assert text[number].isspace() or text[number] in shown[cell]


def test_where_the_last_layer_looks_is_what_its_attention_says(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    config = HybridCtxConfig(**config_fields(tokenizer), attn_implementation="eager")
    model = HybridCtxForReading(config).eval()
    batch = LookingBatches(tokenizer, PROSE, steps=1, broad=0.0, page_tokens=500)[0]
    fused = {name: value for name, value in batch.items() if name not in ("labels", "weights", "looks", "kind")}
    with torch.no_grad():
        last = model.model(**fused, use_cache=False, output_attentions=True).attentions[-1]
        model(**batch)
    row, query, key = batch["looks"].T
    expected = -last[row[:, None], torch.tensor(FETCHING_HEADS), query[:, None], key[:, None]].log().mean()
    assert model.averages[f"{batch['kind']}_looking"] == pytest.approx(expected.item(), rel=1e-4)


def test_reading_labels_say_what_each_visual_token_shows(tokenizer: PreTrainedTokenizerFast) -> None:
    reader = PageReader(tokenizer)
    labels = reader.characters(reader.draw("She said it\nin 1814, an extraordinary-looking hat"))
    shown = ["".join(CHARACTERS[index] for index in row).rstrip() for row in labels.tolist()]
    assert shown == ["She said it ¶ in", "1814, an", "extraordinary", "-looking hat"]
    pieces = reader.pieces(labels)
    assert tokenizer.decode(pieces[1][pieces[1] != IGNORE]).strip().startswith("1814,")


def test_each_visual_token_is_asked_for_the_two_before_it(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = ReadBatches(tokenizer, PROSE, steps=9, tokens_per_batch=64)[4]
    pieces, before = batch["pieces"], batch["pieces_before"]
    height = int(batch["image_grid_thw"][0, 1]) // 2
    assert torch.equal(before[1:height, :8], pieces[: height - 1])
    assert torch.equal(before[2:height, 8:], pieces[: height - 2])
    assert (before[0] == IGNORE).all() and (before[1, 8:] == IGNORE).all()
    assert len(batch["characters"]) == len(pieces) == len(batch["pixel_values"]) // 4


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


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, text in PROSE.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_the_stages_run_stop_and_go_on(corpus: Path, tmp_path: Path) -> None:
    for stage in ("recall", "read"):
        train_stage(stage, corpus, tmp_path, steps=2, tokens_per_batch=300)
    recalled, read = (load_file(tmp_path / stage / "model.safetensors") for stage in ("recall", "read"))
    embeddings = "model.language_model.embed_tokens.weight"
    assert torch.equal(recalled[embeddings], read[embeddings])
    append_layers(corpus, tmp_path, num_batches=4, tokens_per_batch=400)
    train_stage("answer", corpus, tmp_path, steps=2, tokens_per_batch=300)
    weights = load_file(tmp_path / "answer" / "model.safetensors")
    assert torch.equal(weights["model.visual.downsample.weight"], read["model.visual.downsample.weight"])
    train_stage("answer", corpus, tmp_path, steps=3, tokens_per_batch=300)
    assert (tmp_path / "answer" / "checkpoint-3").exists()
    moved = load_file(tmp_path / "answer" / "model.safetensors")
    assert any(not torch.equal(weights[name], moved[name]) for name in weights)
    for stage in ("lengthen", "broaden", "attend"):
        train_stage(stage, corpus, tmp_path, steps=2, tokens_per_batch=300)
    pack_checkpoint(tmp_path / "answer", tmp_path, tmp_path / "packed")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "packed")
    assert model.dtype == torch.float32
    stored = load_file(tmp_path / "packed" / "model.safetensors")
    assert stored["model.visual.downsample.weight"].dtype == torch.bfloat16
    assert not any(name.startswith("reading.") for name in stored)


def test_a_tower_learns_on_and_leaves_the_decoder_as_it_is(
    corpus: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    folder = train_stage("read", corpus, tmp_path, steps=2, tokens_per_batch=100, start=BUNDLED_CHECKPOINT)
    learned, bundled = (load_file(one / "model.safetensors") for one in (folder, Path(BUNDLED_CHECKPOINT)))
    moved = {name for name, tensor in bundled.items() if not torch.equal(tensor.float(), learned[name])}
    assert moved
    assert all(name.startswith("model.visual.") for name in moved)

    model = HybridCtxForReading(HybridCtxConfig(**config_fields(tokenizer)))
    names = set(model.state_dict())
    batch = ReadBatches(tokenizer, PROSE, steps=1, tokens_per_batch=64)[0]
    model.keep_tower()
    model(**batch)
    for parameter in model.model.visual.parameters():
        parameter.data.mul_(1.1)
    kept = model._as_kept(batch["pixel_values"], batch["image_grid_thw"])
    now = torch.cat(list(model.model.get_image_features(batch["pixel_values"], batch["image_grid_thw"]).pooler_output))
    assert not torch.allclose(kept, now)
    assert set(model.state_dict()) == names


def test_answer_goes_on_from_a_checkpoint_with_its_tokenizer(
    corpus: Path, tokenizer_of_runs: Path, tmp_path: Path
) -> None:
    train_stage("answer", corpus, tmp_path, steps=1, tokens_per_batch=300, start=BUNDLED_CHECKPOINT)
    used = PreTrainedTokenizerFast.from_pretrained(tmp_path / "tokenizer")
    assert used.get_vocab() == PreTrainedTokenizerFast.from_pretrained(BUNDLED_CHECKPOINT).get_vocab()
    other = tmp_path / "other"
    shutil.copytree(tokenizer_of_runs, other / "tokenizer")
    with pytest.raises(ValueError, match="another tokenizer"):
        train_stage("answer", corpus, other, steps=1, tokens_per_batch=300, start=BUNDLED_CHECKPOINT)


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        ("read", "recall"),
        ("answer", "append"),
        ("lengthen", "answer"),
        ("broaden", "lengthen"),
        ("attend", "broaden"),
    ],
)
def test_a_stage_before_the_one_it_needs_is_refused(stage: Any, missing: str, corpus: Path, runs: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"run the stage '{missing}' first"):
        train_stage(stage, corpus, runs, steps=2, tokens_per_batch=300)


def test_a_loss_that_is_no_number_stops_the_run(corpus: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "training_step", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(FloatingPointError, match="lower learning rate"):
        train_stage("recall", corpus, runs, steps=2, tokens_per_batch=300)


def test_an_unknown_stage_is_refused(tmp_path: Path) -> None:
    options = ["--corpus", str(tmp_path), "--runs", str(tmp_path), "--steps", "10"]
    result = CliRunner().invoke(app, ["stage", "sleep", *options])
    assert result.exit_code == 2
    assert "unknown stage 'sleep'; the stages are recall, " in result.stderr
