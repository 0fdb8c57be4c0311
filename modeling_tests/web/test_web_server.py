# SPDX-License-Identifier: Apache-2.0
"""The page's server, without a browser: costs, answers as events, what each session sees, and what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from http.cookiejar import CookieJar
from threading import Event
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, OpenerDirector, Request, build_opener

import numpy as np
import pytest
from command_line import TALE
from document_samples import pdf_file
from live_server import running
from PIL import Image
from sample_answers import answer_that_says

from transformers_hybridctx import ContextPlan, HybridCtxProcessor, LongDocQAPipeline
from transformers_hybridctx.answering.generated import FinishReason
from transformers_hybridctx.cli.answers import answer_rows
from transformers_hybridctx.planning.budget import ContextBudgetError
from transformers_hybridctx.rendering.rasterizing import unroll_strip
from transformers_hybridctx.serving.settings import ServerSettings
from transformers_hybridctx.web import app as web_app
from transformers_hybridctx.web.app import create_desk
from transformers_hybridctx.web.asking import Desk, Question
from transformers_hybridctx.web.pages import as_shown, place_on_picture
from transformers_hybridctx.web.sessions import OpenDocument
from transformers_hybridctx.web.views import answer_view, in_words

QUESTION = "What is the special magic number for green-lemur?"


class Browser:
    """What a browser keeps, which is its cookies, and what it sends."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._opener: OpenerDirector = build_opener(HTTPCookieProcessor(CookieJar()))

    def send(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Any:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
        return self._opener.open(Request(self.address + path, data, sent, method=method), timeout=60)

    def json(self, *arguments: Any, **headers: str) -> Any:
        return json.load(self.send(*arguments, **headers))

    def open(self, data: bytes, name: str) -> Any:
        return self.json(f"/api/documents?name={name}", data)

    def ask(self, document: dict[str, Any], question: str = QUESTION, **more: Any) -> list[dict[str, Any]]:
        answered = self.send(f"/api/documents/{document['id']}/ask", {"question": question, **more})
        return [json.loads(line[6:]) for line in answered.read().decode().split("\n\n") if line.startswith("data: ")]


def refusal(status: int, browser: Browser, *arguments: Any, **headers: str) -> str:
    with pytest.raises(HTTPError) as caught:
        browser.send(*arguments, **headers)
    assert caught.value.code == status
    sentence: str = json.load(caught.value)["error"]
    assert (sentence[0].isupper() or sentence.startswith("a.")) and sentence.endswith(".")  # or a file's name
    return sentence


@pytest.fixture(scope="module")
def address(pipe: LongDocQAPipeline) -> Iterator[str]:
    settings = ServerSettings(max_new_tokens=6, max_request_bytes=20_000, max_stored_bytes=30_000, max_files=3)
    shared = Desk(pipe, settings).laid_out(TALE, "tale.txt", 0, is_shared=True)
    with running(create_desk(pipe, settings, [shared])) as found:
        yield found


def test_an_answer_comes_as_events_and_says_how_it_stands_before_it_says_what(
    address: str, pipe: LongDocQAPipeline
) -> None:
    browser = Browser(address)
    document = browser.json("/api/desk")["documents"][0]
    assert document["characters"] == len(TALE) and document["shared"]
    events = browser.ask(document, chat="c", turn="t")
    kinds = [event["event"] for event in events]
    assert kinds[0] == "progress" and kinds[-1] == "answer" and set(kinds) == {"progress", "said", "answer"}
    read = [event for event in events if event.get("stage") == "pages read"]
    assert (read[0]["done"], read[-1]["done"]) == (0, document["pages"]) and read[0]["total"] == document["pages"]
    answer = events[-1]["answer"]
    expected = pipe(question=QUESTION, document=pipe.read(text=TALE))
    assert answer["text"] == expected["answer"]
    said = "".join(event["text"] for event in events if event["event"] == "said" and event["kind"] == "answer")
    assert said.strip() == expected["answer"]
    assert answer["status"] == expected["support"]["status"] and answer["standing"]
    assert (answer["chat"], answer["turn"]) == ("c", "t")
    again = browser.ask(document, "And the age?")
    assert not [event for event in again if event.get("stage") == "pages read"]  # it has been read
    assert [one["id"] for one in browser.json("/api/desk")["answers"]] == [answer["id"], again[-1]["answer"]["id"]]


def test_costs_are_those_of_the_processor_and_a_small_budget_says_which_would_do(
    address: str, pipe: LongDocQAPipeline
) -> None:
    browser = Browser(address)
    document = browser.json("/api/desk")["documents"][0]
    path = f"/api/documents/{document['id']}/plan"
    costs = {cost["policy"]: cost for cost in browser.json(path, {"question": QUESTION, "budget": 2000})["costs"]}
    plan = pipe.processor.plan(TALE, QUESTION, budget={"max_context_tokens": 2000}, text_policy="anchors")
    anchors = costs["anchors"]
    assert (anchors["prompt"], anchors["visual"], anchors["copied"]) == (
        plan.total_tokens,
        plan.visual_tokens,
        plan.text_tokens,
    )
    assert anchors["characters"] == pytest.approx(len(TALE) / (plan.visual_tokens + plan.text_tokens))
    small = {cost["policy"]: cost for cost in browser.json(path, {"question": QUESTION, "budget": 10})["costs"]}
    least = small["none"]["smallest"]
    assert f"{least:,}" in small["none"]["error"]
    enough = browser.json(path, {"question": QUESTION, "budget": least})["costs"]
    assert next(cost for cost in enough if cost["policy"] == "none")["prompt"] <= least


def test_three_contexts_answer_the_same_question_and_tokens_cost_no_more_than_both(address: str) -> None:
    browser = Browser(address)
    document = browser.json("/api/desk")["documents"][0]
    plans = {}
    for context in ("pages", "hybrid", "tokens"):
        answer = browser.ask(document, context=context, policy="anchors")[-1]["answer"]
        rows = dict(answer["plan"])
        plans[context] = int(rows["prompt"].split(" ")[0].replace(",", "")), rows["pages"], rows["copied"]
        assert answer["has_pages"] == (context != "tokens")
    assert plans["pages"][2].startswith("0 spans") and plans["tokens"][1].startswith("0 at")
    assert plans["tokens"][0] <= plans["hybrid"][0]


def test_a_page_is_drawn_to_be_read_and_where_the_model_looked_covers_all_of_them(address: str) -> None:
    browser = Browser(address)
    document = browser.json("/api/desk")["documents"][0]
    picture = Image.open(io.BytesIO(browser.send(f"/api/documents/{document['id']}/pages/1").read()))
    assert picture.size == (168 * 4, 168 * 4)
    answer = browser.ask(document)[-1]["answer"]
    heat = browser.json(f"/api/answers/{answer['id']}/heat")["pages"]
    assert len(heat) == document["pages"] and max(max(page["values"]) for page in heat) == 255
    assert all(len(page["values"]) == page["rows"] * page["columns"] for page in heat)
    bare = browser.ask(document, context="tokens")[-1]["answer"]
    assert "no pages" in refusal(400, browser, f"/api/answers/{bare['id']}/heat")


@pytest.mark.parametrize(("said", "status"), [("4821930", "verbatim"), ("4821931", "near"), ("tomorrow", "absent")])
def test_evidence_is_shown_in_its_words_with_its_box_at_any_size(
    processor: HybridCtxProcessor, said: str, status: str
) -> None:
    plan = processor.plan(TALE, QUESTION, text_policy="none")
    answer = answer_that_says(processor, plan, QUESTION, said)
    shown = answer_view("a", Question(QUESTION), OpenDocument("tale.txt", 0, 0, plan.document), answer)
    assert shown["status"] == status
    told = " ".join(text for _, row in shown["standing"] for text, _ in row)
    assert {"verbatim": "word for word", "near": "4821930", "absent": "nothing in the document"}[status] in told
    assert all(label != "standing" for label, _ in shown["said"])
    if status == "verbatim":
        (item,) = shown["evidence"]
        ((page, box),) = plan.document.boxes(TALE.index(said), TALE.index(said) + len(said), 4.0)
        assert item["page"] == page + 1
        assert [[168 * 4 * side for side in one] for one in item["boxes"]] == [pytest.approx(box, abs=4)]
        assert [text for text, style in item["around"] if style == "bold"] == [said]
    else:
        assert not shown["evidence"]


def test_nothing_of_one_session_is_there_for_another(address: str) -> None:
    mine, other = Browser(address), Browser(address)
    document = mine.open(b"The secret of the first session is 4711, and nobody else's.", "secret.txt")
    answer = mine.ask(document, "Which secret?")[-1]["answer"]
    seen = other.json("/api/desk")
    assert [one["name"] for one in seen["documents"]] == ["tale.txt"] and not seen["answers"]
    for path, body in (
        (f"/api/documents/{document['id']}/pages/1", None),
        (f"/api/documents/{document['id']}/ask", {"question": "Which secret?"}),
        (f"/api/documents/{document['id']}/plan", {}),
        (f"/api/answers/{answer['id']}/heat", None),
    ):
        assert "not on your desk" in refusal(404, other, path, body)
    shared = seen["documents"][0]
    told = refusal(404, other, f"/api/documents/{shared['id']}/ask", {"question": "?", "before": [answer["id"]]})
    assert "answer is not on your desk" in told
    refusal(404, other, f"/api/documents/{document['id']}", None, "DELETE")
    assert mine.json(f"/api/documents/{document['id']}", None, "DELETE") == {"closed": True}
    assert not mine.json("/api/desk")["answers"]


def test_what_cannot_be_done_is_a_sentence(address: str) -> None:
    browser = Browser(address)
    shared = browser.json("/api/desk")["documents"][0]
    ask = f"/api/documents/{shared['id']}/ask"
    assert "empty" in refusal(400, browser, ask, {"question": "  "})
    assert "not permitted" in refusal(400, browser, ask, {"question": "?", "policies": "bm25"})
    error = browser.ask(shared, budget=3)[-1]
    assert error["event"] == "error" and error["message"].startswith("The budget (3) is too small")
    assert "damaged" in refusal(400, browser, "/api/documents?name=a.pdf", b"%PDF-1.7 and then nothing")
    assert "no bytes" in refusal(400, browser, "/api/documents?name=a.txt", b"")
    assert "there is no page 99" in refusal(404, browser, f"/api/documents/{shared['id']}/pages/99").lower()
    assert "20,000 bytes" in refusal(413, browser, "/api/documents?name=a.txt", b"word " * 5000)
    for wrong in ("c2V", "not base64", "/w=="):
        told = refusal(400, browser, "/api/documents?name=a.pdf", b"%PDF", x_password=wrong)
        assert told.startswith("The header x-password is not the base64 of UTF-8")
    assert "encoding" in refusal(400, browser, "/api/documents?name=a.txt&encoding=klingon", b"word")


def test_a_locked_file_is_told_of_in_the_words_of_the_page(address: str) -> None:
    told = refusal(400, Browser(address), "/api/documents?name=a.pdf", pdf_file(["Text."], encrypted=True))
    assert told.endswith("give its password, or save it without its password.")


def test_files_are_read_as_the_page_says(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = Browser(address)
    document = browser.json("/api/documents?name=a.txt&encoding=cp1252", "Straße".encode("cp1252"))
    assert not document["notes"] and document["characters"] == 6
    asked_for = []

    def recogniser(languages: str) -> Any:
        asked_for.append(languages)
        return lambda picture: [("words", (0, 0, 40, 10))]

    monkeypatch.setattr(web_app, "tesseract", recogniser)
    scan = io.BytesIO()
    Image.new("L", (80, 60), 255).save(scan, "PNG")
    scanned = browser.json("/api/documents?name=a.png&ocr=deu%2Bfra", scan.getvalue())
    assert scanned["characters"] == 5 and asked_for == ["deu+fra"]
    for one in (document, scanned):
        browser.json(f"/api/documents/{one['id']}", None, "DELETE")


def test_pages_beyond_the_checkpoints_own_budget_are_asked_with_one_that_holds_them(
    pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pipe.processor, "default_budget", {"max_context_tokens": 60, "max_text_tokens": 40, "min_scale": 1.0}
    )
    desk = Desk(pipe, ServerSettings(max_new_tokens=2))
    document = desk.laid_out(TALE, "tale.txt", 0)
    pages = pipe.processor.plan(TALE, QUESTION, text_policy="none", budget={"max_context_tokens": 999}).total_tokens
    assert pages > 60
    budget, found = desk.plans(document, Question(QUESTION, policy="bm25"))
    assert budget == pages + 40
    assert all(isinstance(found[policy], ContextPlan) for policy in ("none", "bm25", "middle"))
    assert found["middle"].text_tokens
    answer, _ = desk.answer(document, Question(QUESTION), Event(), lambda event: None)
    assert 60 < answer["plan"].total_tokens <= budget
    _, found = desk.plans(document, Question(QUESTION, budget=60))  # which somebody chose
    assert isinstance(found["none"], ContextBudgetError)


def test_copied_text_alone_needs_no_pages(pipe: LongDocQAPipeline) -> None:
    desk = Desk(pipe, ServerSettings(max_new_tokens=2))
    document = desk.laid_out(TALE, "tale.txt", 0)
    for context in ("passages", "tokens"):
        asked = Question(QUESTION, context=context, budget=80, policy="anchors")
        answer, _ = desk.answer(document, asked, Event(), lambda event: None)
        assert answer["plan"].spans and not answer["plan"].num_pages and answer["plan"].total_tokens <= 80


def test_uploads_are_bounded_in_all_and_closing_one_makes_room(address: str) -> None:
    browser = Browser(address)
    opened = [browser.open(b"word " * 2000, f"{name}.txt") for name in "abc"]
    assert "no room" in refusal(507, browser, "/api/documents?name=d.txt", b"word")
    browser.json(f"/api/documents/{opened[0]['id']}", None, "DELETE")
    browser.open(b"word", "d.txt")
    for one in browser.json("/api/desk")["documents"]:
        if not one["shared"]:
            browser.json(f"/api/documents/{one['id']}", None, "DELETE")


def test_orders_of_other_pages_and_other_names_of_this_machine_are_refused(address: str) -> None:
    browser = Browser(address)
    for other in ("http://elsewhere.example", "http://[", "null"):
        assert "itself only" in refusal(403, browser, "/api/desk", origin=other)
    assert browser.json("/api/desk", origin=address)["documents"]
    with pytest.raises(HTTPError, match="400"):
        browser.send("/", host="elsewhere.example")


@pytest.mark.parametrize("path", ["/", "/static/desk.css", "/static/desk.js", "/static/viewer.js"])
def test_the_page_names_nothing_from_elsewhere_and_forbids_it(address: str, path: str) -> None:
    response = Browser(address).send(path)
    assert b"//" not in response.read().replace(b"// ", b"").replace(b"http://www.w3.org/2000/svg", b"")
    assert "default-src 'none'" in response.headers["content-security-policy"]


def test_a_file_that_is_read_by_a_guess_says_so_to_its_session(address: str) -> None:
    browser = Browser(address)
    document = browser.open("Die Straße führt über die Brücke nach Süden, sagte der Müller.".encode("cp1252"), "a.txt")
    assert document["notes"] and "a.txt" in document["notes"][0]
    browser.json(f"/api/documents/{document['id']}", None, "DELETE")


def test_errors_of_the_library_are_told_without_its_parameters() -> None:
    told = in_words("max_context_tokens=3 is too small: the question alone takes 20; give max_context_tokens=20")
    assert told == "The budget (3) is too small: the question alone takes 20; give the budget (20)."


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "the pages take 90 at scale 1 (min_scale=1); visual_share=0 does without pages",
            "The pages take 90 at scale 1; “copied text only” does without pages.",
        ),
        ("9 take 90 (min_scale=1, visual_share=0.5), question 3", "9 take 90, question 3."),
        (
            "visual_share=0 leaves out the pages; raise visual_share",
            "“copied text only” leaves out the pages; show the pages, too.",
        ),
        ("a.pdf is encrypted; give its password (password=)", "a.pdf is encrypted; give its password."),
        ("pages='x' is no range", "Its pages ('x') is no range."),
        ("pages='7': a.txt has no pages of its own", "Its pages ('7'): a.txt has no pages of its own."),
        ("give max_context_tokens=20; or less", "Give the budget (20); or less."),
        ("a is cp1252; encoding= decides", "A is cp1252; the encoding under “How files are read” decides."),
    ],
)
def test_errors_name_what_the_page_has(message: str, told: str) -> None:
    assert in_words(message) == told


@pytest.mark.parametrize("finish_reason", ["stop", "length"])
def test_scans_stand_on_the_page_as_they_do_in_the_terminal(
    processor: HybridCtxProcessor, finish_reason: FinishReason
) -> None:
    plan = processor.plan([np.zeros((168, 168), np.uint8)], QUESTION)
    answer = answer_that_says(processor, plan, QUESTION, "4821930", finish_reason)
    shown = answer_view("a", Question(QUESTION), OpenDocument("scan.png", 0, 0, plan.document), answer)
    told = ["".join(text for text, _ in row) for _, row in shown["standing"]]
    printed = [value if isinstance(value, str) else value.plain for label, value in answer_rows(QUESTION, answer)]
    assert told[0].startswith("cannot be checked: ")
    assert told[0].replace("under “How files are read”", "--ocr") in printed
    assert shown["no_evidence"] in printed
    assert ["hybridctx web" in one for one in told[1:]] == [True] * (finish_reason == "length")


def test_a_strip_of_cells_is_shown_as_columns_with_its_boxes_and_its_heat_on_the_right_cells() -> None:
    height, width = 40 * 24, 24  # 40 cells under one another
    rows, columns, gap = 8, 5, 6
    page = np.full((height, width), 255, np.uint8)
    page[24 * 19 + 4 : 24 * 19 + 12, 6:18] = 0  # in the twentieth cell, the fourth of the third column
    picture = np.asarray(unroll_strip(Image.fromarray(page)).convert("L"))
    box = place_on_picture((6, 24 * 19 + 4, 18, 24 * 19 + 12), height, width)
    high, wide = picture.shape
    assert (high, wide) == (2 * rows * width, 2 * (columns * (width + gap) - gap))
    dark = np.argwhere(picture < 100)
    (top, left), (bottom, right) = dark.min(axis=0), dark.max(axis=0) + 1
    assert [left / wide, top / high, right / wide, bottom / high] == pytest.approx(box, abs=0.005)
    table = np.zeros((40, 1), int)
    table[19] = 255
    heat = as_shown(table, height, width)
    at_row, at_column = np.argwhere(heat == 255).mean(axis=0) + 0.5
    assert at_row / heat.shape[0] == pytest.approx((box[1] + box[3]) / 2, abs=0.05)
    assert at_column / heat.shape[1] == pytest.approx((box[0] + box[2]) / 2, abs=0.02)
