# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser, as a reader uses it: files, costs, answers, evidence on the page, stopping, two readers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Reader, reader_at
from command_line import TALE
from document_samples import pdf_file
from live_server import running
from PIL import Image
from transformers import pipeline

from transformers_hybridctx import LongDocQAPipeline
from transformers_hybridctx.serving.settings import ServerSettings
from transformers_hybridctx.web.app import create_desk
from transformers_hybridctx.web.asking import Desk
from transformers_hybridctx.web.pages import place_on_picture

pytestmark = pytest.mark.browser

QUESTION = "What is the special magic number for green-lemur mentioned in the provided text?"
ANSWER = "4821930"


@pytest.fixture(scope="module")
def bundled() -> LongDocQAPipeline:
    return pipeline("long-doc-qa")


@pytest.fixture(scope="module")
def address(bundled: LongDocQAPipeline) -> Iterator[str]:
    settings = ServerSettings(max_new_tokens=64, max_request_bytes=1_000_000)
    long = Desk(bundled, settings).laid_out("It was the best of times. " * 8000, "long.txt", 0, is_shared=True)
    with running(create_desk(bundled, settings, [long])) as found:
        yield found


@pytest.fixture(scope="module")
def reader(address: str) -> Iterator[Reader]:
    with reader_at(address) as found:
        yield found


@pytest.fixture(autouse=True)
def page_has_no_errors(reader: Reader) -> Iterator[None]:
    yield
    assert not [told for told in reader.complaints() if "status of 4" not in told]


def open_file(reader: Reader, path: Path) -> None:
    reader.upload(path)
    reader.until(lambda: reader.text("#name") == path.name)


def answered(reader: Reader) -> None:
    """Wait for the last question's answer."""
    reader.until(lambda: reader.text("#ask button[type=submit]") == "Ask")
    reader.until(lambda: reader.all("#turns > li:last-child .evidence"))


def choose_context(reader: Reader, name: str) -> None:
    choose = "const list = document.getElementById('context');"
    choose += "list.value = arguments[0]; list.dispatchEvent(new Event('change'))"
    reader.driver.execute_script(choose, name)


def red_outline(picture: bytes) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is drawn in the boxes' colour."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    rows, columns = np.nonzero(np.abs(pixels - [214, 24, 24]).sum(axis=2) < 60)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_a_text_is_uploaded_asked_and_its_evidence_boxed_on_the_very_words(
    reader: Reader, bundled: LongDocQAPipeline, tmp_path: Path
) -> None:
    path = tmp_path / "tale.txt"
    path.write_text(TALE)
    open_file(reader, path)
    assert "1 page" in reader.text("#facts")
    reader.until(lambda: "tokens" in reader.text("#plan-headline"))
    reader.ask(QUESTION)
    answered(reader)
    assert "word for word" in reader.text(".standing") and ANSWER in reader.text(".words")
    standing, words = reader.one(".answer .standing"), reader.one(".answer .words")
    assert standing.location["y"] < words.location["y"]
    evidence = reader.one(".evidence button")
    assert "page 1" in evidence.text and ANSWER in evidence.text
    reader.click(".evidence button")
    reader.until(lambda: reader.driver.execute_script("return document.getElementById('picture').complete"))
    shown = reader.one("#page")
    left, top, right, bottom = red_outline(shown.screenshot_as_png)
    document = bundled.lay_out(text=TALE)
    ((_, box),) = document.boxes(TALE.index(ANSWER), TALE.index(ANSWER) + len(ANSWER))
    sides = (shown.size["width"], shown.size["height"]) * 2
    expected = [part * side for part, side in zip(place_on_picture(box, *document.page_size(0)), sides, strict=True)]
    assert [left, top, right, bottom] == pytest.approx(expected, abs=4)
    reader.click("#heat")
    reader.until(lambda: "looked most at page" in reader.text("#heat-pages"))
    heat = "const glow = document.getElementById('glow');"
    heat += "return Math.max(...glow.getContext('2d').getImageData(0, 0, glow.width, glow.height).data)"
    reader.until(lambda: reader.driver.execute_script(heat) > 0)
    assert reader.driver.switch_to.active_element.get_attribute("id") == "heat"
    reader.keys_here("/")  # keys work while a box has the focus
    assert reader.driver.switch_to.active_element.get_attribute("id") == "question"
    reader.keys("\ue00c")
    assert not reader.all("#viewer")
    reader.ask("  ")
    assert reader.one("#question").get_attribute("value") == ""


def test_a_pdf_tells_the_page_of_the_file_and_the_keyboard_is_enough(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "tale.pdf"
    path.write_bytes(
        pdf_file(["It was the best of times.", f"The special magic number for green-lemur is: {ANSWER}."])
    )
    open_file(reader, path)
    reader.keys("/")
    assert reader.driver.switch_to.active_element.get_attribute("id") == "question"
    reader.ask(QUESTION)
    answered(reader)
    reader.keys("n")
    reader.until(lambda: "page 2 of" in reader.text(".evidence button[aria-pressed=true]"))
    first = reader.text("#page-shown")
    reader.keys("\ue014")  # arrow to the right
    assert reader.text("#page-shown") != first or "1 of 1" in first


def test_costs_follow_the_slider_and_a_budget_that_is_too_small_names_one_that_works(
    reader: Reader, tmp_path: Path
) -> None:
    path = tmp_path / "costs.txt"
    path.write_text(TALE)
    open_file(reader, path)
    reader.until(lambda: "in place of" in reader.text("#plan-headline"))
    reader.keys("\ue00c")  # beside an open page there is no room for bars
    slide = "const slider = document.getElementById('budget');"
    slide += "slider.value = arguments[0]; slider.dispatchEvent(new Event('input'))"
    reader.driver.execute_script(slide, 0)
    reader.until(lambda: "256 tokens" in reader.text("#budget-shown") and "needs a budget of" in reader.text("#costs"))
    reader.click("#costs button")
    reader.until(lambda: reader.all("#costs .bar"))
    reader.driver.execute_script(slide, 1000)


def test_a_document_beyond_the_checkpoints_own_budget_gets_one_that_holds_it(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "longest.txt"
    path.write_text("It was the best of times. " * 17_000)
    open_file(reader, path)
    reader.until(lambda: "its pages need it" in reader.text("#budget-note"))
    reader.keys("\ue00c")
    assert reader.all("#costs .bar") and "cannot be met" not in reader.text("#plan-headline")
    slide = "const slider = document.getElementById('budget');"
    slide += "slider.value = 900; slider.dispatchEvent(new Event('input'))"
    reader.driver.execute_script(slide)
    reader.until(lambda: "needs a budget of" in reader.text("#costs"))
    choose_context(reader, "passages")
    reader.until(lambda: "cannot be met" not in reader.text("#plan-headline"))
    choose_context(reader, "hybrid")


def test_files_are_read_and_answers_held_as_the_controls_say(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "old.txt"
    path.write_bytes(TALE.replace("times", "Zeiträume").encode("cp1252"))
    reader.click("#drop summary")
    reader.one("#encoding").send_keys("klingon")
    reader.upload(path)
    reader.until(lambda: "klingon" in reader.text("#alert"))
    reader.one("#encoding").clear()
    reader.one("#encoding").send_keys("cp1252")
    open_file(reader, path)
    assert not reader.all("#notes li")
    reader.one("#encoding").clear()
    reader.driver.execute_script("document.getElementById('repair').click()")
    choose_context(reader, "passages")
    reader.ask(QUESTION)
    answered(reader)
    assert ANSWER in reader.text("#turns > li:last-child .words")
    assert not reader.all("#turns > li:last-child h3")
    choose_context(reader, "hybrid")
    reader.driver.execute_script("document.getElementById('repair').click()")


def test_long_reading_says_how_far_it_is_and_can_be_stopped(reader: Reader) -> None:
    reader.click(".document button", "long.txt")
    reader.until(lambda: reader.text("#name") == "long.txt")
    reader.ask("Which times?")
    reader.until(lambda: "pages read: " in reader.text(".how-far"))
    reader.click("#ask button[type=submit]")
    reader.until(lambda: "Stopped" in reader.text(".standing") and "Ask" in reader.text("#ask button[type=submit]"))
    assert reader.driver.find_element("id", "question").get_attribute("value") == "Which times?"


def test_errors_are_sentences_and_the_page_goes_on(reader: Reader, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pdf"
    damaged.write_bytes(b"%PDF-1.7 and then nothing")
    reader.upload(damaged)
    reader.until(lambda: "damaged.pdf" in reader.text("#alert"))
    large = tmp_path / "large.txt"
    large.write_text("word " * 300_000)
    reader.upload(large)
    reader.until(lambda: "more than the 1,000,000" in reader.text("#alert"))
    assert reader.text("#alert").endswith(".") and not reader.all("#opening li")


def test_two_readers_at_once_see_their_own_desks_only(reader: Reader, address: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(TALE)
    open_file(reader, path)
    with reader_at(address, width=390, height=800) as other:
        other.until(lambda: other.text("#documents"))
        other.until(lambda: "in place of" in other.text("#plan-headline"))  # with its controls, which are the widest
        assert other.driver.execute_script("return document.documentElement.scrollWidth") <= 390
        assert "long.txt" in other.text("#documents") and "mine.txt" not in other.text("#documents")
        theirs = tmp_path / "theirs.txt"
        theirs.write_text(TALE.replace(ANSWER, "1357913"))
        open_file(other, theirs)
        for one in (reader, other):
            one.ask(QUESTION)
        for one, said in ((reader, ANSWER), (other, "1357913")):
            answered(one)
            assert said in one.text("#turns > li:last-child .words")
        wide = other.driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= 390 and not other.complaints()
    reader.driver.refresh()
    reader.until(lambda: "mine.txt" in reader.text("#documents"))
    assert QUESTION in reader.text("#documents") and "theirs.txt" not in reader.text("#documents")
