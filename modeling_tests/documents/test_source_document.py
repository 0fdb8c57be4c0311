# SPDX-License-Identifier: Apache-2.0
"""Pages as they are hold what typeset pages hold: every character has its place, and every place its characters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from document_samples import Annotation, SamplePage, lines, pdf_file, scan
from hypothesis import given, settings
from hypothesis import strategies as st
from paged_text_contract import check_paged_text
from PIL import Image
from render_layouts import CELLS, PROPORTIONAL, TYPESETTERS, awkward_text

from transformers_hybridctx.documents.character_strips import STEPS, strips_of
from transformers_hybridctx.documents.files import read_document_file
from transformers_hybridctx.documents.joined_document import DocumentParts, JoinedDocument
from transformers_hybridctx.documents.page_numbers import SourcePage, source_page
from transformers_hybridctx.documents.scans import ScannedPages
from transformers_hybridctx.documents.source_document import ShownPage, SourceDocument
from transformers_hybridctx.rendering.typesetting import Typesetter

FORM = (
    Annotation("Tx", "Ada Example", (100, 165, 250, 185), "name"),
    Annotation("Tx", "CODE-4471", (100, 20, 250, 40), "account"),
)
LONG = "\n".join(["All of this stands on the page as text, beside its picture."] * 5)
PAGES: list = [
    "The code is 4821.\nKeep it.",
    "",
    SamplePage(lines("Name:\nSigned below."), annotations=FORM),
    SamplePage(lines("Row one value\nRow two 77"), extra="/Rotate 90"),
    SamplePage(lines("Cropped away, and shown"), extra="/CropBox [60 100 280 190]"),
    b"q 0 1 -1 0 280 0 cm " + lines("Sideways one\nmore 99") + b"Q\n" + lines("upright"),
    SamplePage(lines(LONG), picture=Image.new("L", (30, 20), 230)),
    SamplePage(lines("The code is 4821.", before="3 Tr"), picture=scan("The code is 4821.")),
    lines("left")
    + lines("middle", x=120)
    + lines("right", x=240)
    + lines("a long line that leaves the page " * 3, y=20),
    SamplePage(b"", picture=scan("a scan")),
]


def write(folder: Path, *args, **kwargs) -> Path:
    path = folder / "a.pdf"
    path.write_bytes(pdf_file(*args, **kwargs))
    return path


class Paper:
    """A white page: a `PageSource`."""

    def __init__(self, height: int = 200, width: int = 300) -> None:
        self.size = (height, width)

    def draw(self, height: int, width: int) -> Image.Image:
        return Image.new("L", (width, height), 255)


def on_paper(*words: tuple[str, tuple[float, float, float, float]]) -> ShownPage:
    """A page of characters with boxes in pixels of a paper of 300 x 200."""
    shares = np.array([box for _, box in words], dtype=np.float64).reshape(-1, 4) / (300, 200, 300, 200)
    return ShownPage.of(Paper(), "".join(one for one, _ in words), shares)


NOWHERE = (np.nan,) * 4
sides = st.floats(-20, 320, allow_nan=False)
boxes = st.one_of(
    st.just(NOWHERE),
    st.tuples(sides, sides, st.floats(0, 60), st.floats(0, 30)).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])),
)
rows = st.tuples(st.floats(0, 250), st.floats(0, 180), st.integers(1, 20), st.sampled_from((-7, 0, 5, 9))).map(
    lambda row: [(row[0] + row[3] * at, row[1], row[0] + row[3] * at + 6, row[1] + 10) for at in range(row[2])]
)
places = st.lists(st.one_of(boxes.map(lambda box: [box]), rows), max_size=12).map(
    lambda found: [box for group in found for box in group]
)
pages = st.lists(st.tuples(places, st.text(st.sampled_from("ab1 \n\u0301é"), min_size=200, max_size=200)), min_size=1)


def shown(found: list) -> list[ShownPage]:
    return [on_paper(*zip(text, own, strict=False)) for own, text in found]


@given(found=pages, scale=st.floats(0.3, 3), data=st.data())
@settings(max_examples=60, deadline=None)
def test_pages_of_any_boxes_keep_the_contract(found, scale, data) -> None:
    document = SourceDocument(shown(found))
    start = data.draw(st.integers(0, len(document.text)))
    check_paged_text(document, scale, start, data.draw(st.integers(start, len(document.text))))


@pytest.mark.parametrize("name", [name for name in TYPESETTERS if "cropped" not in name])
@given(text=awkward_text, scale=st.floats(0.5, 2), data=st.data())
@settings(max_examples=10, deadline=None)
def test_typeset_pages_keep_the_same_contract(name, text, scale, data) -> None:
    try:
        document = TYPESETTERS[name].typeset(text)
    except ValueError as error:
        assert "empty document" in str(error)
        return
    start = data.draw(st.integers(0, len(text)))
    check_paged_text(document, scale, start, data.draw(st.integers(start, len(text))))


@pytest.mark.parametrize("layout", ["typeset", "source", "auto"])
@pytest.mark.parametrize("config", [PROPORTIONAL, replace(CELLS, auto_crop_last_page=False)], ids=["lines", "cells"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pages_of_a_pdf_keep_it_in_every_layout(tmp_path: Path, layout, config) -> None:
    parts = read_document_file(write(tmp_path, PAGES), layout=layout)
    assert isinstance(parts, DocumentParts)
    document = parts.laid_out(Typesetter(config).typeset)
    assert document.text == parts.text
    for scale in (0.4, 1.0, 1.7):
        for start in range(0, len(document.text), 23):
            check_paged_text(document, scale, start, min(start + 40, len(document.text)))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_text_is_the_same_in_every_layout(tmp_path: Path) -> None:
    path = write(tmp_path, PAGES)
    texts = {layout: read_document_file(path, layout=layout).text for layout in ("typeset", "source", "auto")}
    assert texts["source"] == texts["auto"] == texts["typeset"]
    number = source_page(texts["source"], texts["source"].index("Row two"))
    assert number == SourcePage(4, "4")


def test_boxes_lie_on_what_the_page_shows(tmp_path: Path) -> None:
    """The ink of a word is within its box, and there is none where it is painted over."""
    parts = read_document_file(write(tmp_path, PAGES[2:6]), layout="source")
    document = parts.laid_out(Typesetter(PROPORTIONAL).typeset)
    for word in ("Ada Example", "Row two", "shown", "Sideways", "99", "upright", "below"):
        start = document.text.index(word)
        ((page, (left, top, right, bottom)),) = document.boxes(start, start + len(word), 2.0)
        drawn = np.asarray(next(document.parts[0].draw_pages(2.0, [page])).convert("L"))
        inside = drawn[int(top) : int(bottom) + 1, int(left) : int(right) + 1]
        assert (inside < 128).mean() > 0.02, word


def test_a_page_of_text_is_shown_without_a_word_lost(tmp_path: Path) -> None:
    parts = read_document_file(write(tmp_path, ["The code is 4821.\nKeep it.", "Second page."]), layout="source")
    assert isinstance(parts, DocumentParts)
    assert parts.text == "The code is 4821.\nKeep it.\fSecond page."
    document = parts.laid_out(Typesetter(PROPORTIONAL).typeset)
    assert [(line.page, document.text[line.start : line.end]) for line in document.lines] == [
        (0, "The code is 4821."),
        (0, "Keep it."),
        (1, "Second page."),
    ]
    assert document.page_size(0) == (400, 600)
    with pytest.raises(IndexError, match="page 2 does not exist"):
        document.page_size(2)


def test_auto_shows_pages_whose_look_says_something_and_says_why(tmp_path: Path) -> None:
    table = b"".join(lines(word, x=x, y=y) for y in (170, 150, 130) for x, word in ((20, "Norway"), (150, "364,134")))
    figure = SamplePage(lines("Figure 1"), picture=scan("a chart"), picture_box=(20, 20, 150, 120))
    drawing = lines("A plan") + b"".join(b"%d 50 m %d 90 l S\n" % (x, x) for x in range(20, 280, 5))
    pages: list = ["Prose.\nAnd more of it.", PAGES[2], figure, table, drawing, "Prose again."]
    parts = read_document_file(write(tmp_path, pages), layout="auto")
    assert isinstance(parts, DocumentParts)
    assert [isinstance(part, str) for part in parts.parts] == [True, False, False, False, False, True]
    assert parts.layout_note == (
        "4 pages as in the file (form fields or notes on 2; pictures on 3; tables on 4; drawings on 5), 2 typeset"
    )


def test_scans_stand_among_typeset_pages_in_their_order(tmp_path: Path) -> None:
    pages: list = ["First.", "", SamplePage(lines("No. 7", y=10, size=8), picture=scan("a scan")), "", "Last."]
    with pytest.warns(UserWarning, match="pages 3 hold pictures .* is not known"):
        parts = read_document_file(write(tmp_path, pages))
    assert isinstance(parts, DocumentParts)
    assert parts.text == "First.\f\fNo. 7\f\fLast."
    document = parts.laid_out(Typesetter(CELLS).typeset)
    assert isinstance(document, JoinedDocument)
    assert document.only_scale is None
    scanned = document.page_of(document.text.index("No. 7"))
    # Cells keep their one scale, and the scan follows the plan's.
    sizes = [[document.page_size(page, scale) for page in range(document.num_pages)] for scale in (1.0, 0.5)]
    assert [one == other for one, other in zip(*sizes, strict=True)] == [
        page != scanned for page in range(document.num_pages)
    ]
    assert "unknown text on 3" in parts.layout_note


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layout='pretty' is not one of 'typeset', 'source', 'auto'"):
        read_document_file(write(tmp_path, ["Text."]), layout="pretty")  # type: ignore[arg-type]


def test_a_scan_is_its_pages_in_every_layout(tmp_path: Path) -> None:
    path = write(tmp_path, [SamplePage(lines("No. 7", y=10, size=8), picture=scan("a scan"))] * 2)
    for layout in ("typeset", "source", "auto"):
        assert isinstance(read_document_file(path, layout=layout), ScannedPages)


# Strips


def test_words_of_a_line_are_one_strip_and_blanks_fill_its_gaps() -> None:
    row = [("a", (0, 10, 10, 20)), ("b", (12, 8, 20, 20)), (" ", NOWHERE), ("c", (50, 10, 60, 22)), ("\n", NOWHERE)]
    page = on_paper(*row, ("d", (0, 40, 10, 50)))
    assert page.strips.tolist() == [0, 4]
    edges = (page.boxes[:, [0, 2]].astype(float) * 300 / STEPS).round(1).tolist()
    assert edges[:4] == [[0, 12], [12, 20], [20, 50], [50, 60]]
    assert (page.boxes[:4, [1, 3]].astype(float) * 200 / STEPS).round().tolist() == [[8, 22]] * 4
    assert page.boxes[4].tolist() == [0, 0, 0, 0]


def test_an_accent_without_a_box_has_that_of_its_letter() -> None:
    page = on_paper(("x", (0, 0, 10, 10)), (" ", NOWHERE), ("e", (20, 0, 30, 10)), ("\u0301", NOWHERE))
    assert page.boxes[3].tolist() == page.boxes[2].tolist()
    zero_wide = on_paper(("e", (20, 0, 30, 10)), ("\u0301", (30, 0, 30, 10)), ("f", (30, 0, 40, 10)))
    assert zero_wide.boxes[1].tolist() == zero_wide.boxes[0].tolist()


def test_what_stands_off_the_page_has_no_box() -> None:
    page = on_paper(("a", (290, 0, 299, 10)), ("b", (299, 0, 310, 10)), ("c", (310, 0, 320, 10)))
    assert [bool(box.any()) for box in page.boxes] == [True, True, False]


def test_right_to_left_text_is_a_strip_of_its_own() -> None:
    left = [(one, (10 * at, 0, 10 * at + 10, 10)) for at, one in enumerate("ab")]
    right = [(one, (80 - 10 * at, 0, 90 - 10 * at, 10)) for at, one in enumerate("שלום")]
    page = on_paper(*left, *right)
    assert page.strips.tolist() in ([0, 3], [0, 2])
    boxes, starts = strips_of("", np.zeros((0, 4)), 10, 10)
    assert boxes.shape == (0, 4)
    assert starts.tolist() == [0]
