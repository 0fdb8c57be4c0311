# SPDX-License-Identifier: Apache-2.0
"""Scans gain text: what a recogniser finds is the text of its page, each character at its place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from document_samples import SamplePage, pdf_file, scan
from paged_text_contract import check_paged_text
from PIL import Image, ImageDraw, ImageFont
from render_layouts import PROPORTIONAL

from transformers_hybridctx.documents.files import read_document_file
from transformers_hybridctx.documents.joined_document import DocumentParts, JoinedDocument
from transformers_hybridctx.documents.recognition import RecognizedWord, tesseract
from transformers_hybridctx.documents.scans import ScannedPages
from transformers_hybridctx.rendering.settings import BUNDLED_SANS
from transformers_hybridctx.rendering.typesetting import Typesetter

WORDS = [("The", (10, 10, 40, 30)), ("code", (50, 12, 100, 30)), ("4471", (10, 50, 50, 70))]


def recognize(picture: Image.Image) -> list[Any]:
    assert picture.mode in ("L", "RGB")
    return WORDS


def laid_out(parts: Any) -> JoinedDocument:
    assert isinstance(parts, DocumentParts)
    document = parts.laid_out(Typesetter(PROPORTIONAL).typeset)
    assert isinstance(document, JoinedDocument)
    return document


def picture_file(folder: Path) -> Path:
    Image.new("L", (200, 100), 255).save(folder / "a.png")
    return folder / "a.png"


def test_words_become_lines_with_boxes(tmp_path: Path) -> None:
    document = laid_out(read_document_file(picture_file(tmp_path), ocr=recognize))
    assert document.text == "The code\n4471"
    ((page, box),) = document.boxes(9, 13)
    assert page == 0
    assert box == pytest.approx((10, 50, 50, 70), abs=0.02)
    assert document.boxes(10, 11)[0][1] == pytest.approx((20, 50, 30, 70), abs=0.02)
    for start in range(len(document.text)):
        check_paged_text(document, 0.7, start, len(document.text))
    assert document.layout_note == "1 page as in the file (recognised text on 1)"


def test_only_pages_without_text_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf_file(["Plain text.", SamplePage(b"", picture=scan("x"))]))
    document = laid_out(read_document_file(tmp_path / "a.pdf", ocr=recognize))
    assert document.text == "Plain text.\fThe code\n4471"
    ((page, box),) = document.boxes(len(document.text) - 4, len(document.text))
    assert page == 1
    # The page of 600 x 400 pixels was recognised at twice its size.
    assert box == pytest.approx((5, 25, 25, 35), abs=0.02)


def test_where_no_words_are_found_a_scan_stays_a_scan(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="finds no words"):
        assert isinstance(read_document_file(picture_file(tmp_path), ocr=lambda picture: []), ScannedPages)


@pytest.mark.parametrize("words", ["words", [("a", (1, 2, 3))], [(1, (1, 2, 3, 4))], [("a", (5, 0, 1, 1))], [None]])
def test_what_is_no_word_with_a_box_is_refused(tmp_path: Path, words: Any) -> None:
    with pytest.raises(ValueError, match=r"ocr= gives words as \(text, \(left, top, right, bottom\)\)"):
        read_document_file(picture_file(tmp_path), ocr=lambda picture: words)


def test_a_missing_language_is_named_with_the_way_out() -> None:
    pytest.importorskip("pytesseract")
    if shutil.which("tesseract") is None:
        with pytest.raises(ValueError, match="apt install tesseract-ocr"):
            tesseract()
    else:
        with pytest.raises(ValueError, match=r"tesseract has no language 'xxx'.*apt install tesseract-ocr-xxx"):
            tesseract("xxx")


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="the program tesseract is not installed")
def test_tesseract_reads_a_scan(tmp_path: Path) -> None:
    picture = Image.new("L", (1000, 400), 255)
    font = ImageFont.truetype(BUNDLED_SANS, 48)
    draw = ImageDraw.Draw(picture)
    for row, line in enumerate(("Invoice 2024-0917", "The total is 1,234.50 EUR.")):
        draw.text((100, 100 + 120 * row), line, font=font, fill=0)
    picture.save(tmp_path / "scan.pdf", resolution=144)
    document = laid_out(read_document_file(tmp_path / "scan.pdf", ocr=tesseract()))
    assert document.text == "Invoice 2024-0917\nThe total is 1,234.50 EUR."
    start = document.text.index("1,234.50")
    ((_, (left, top, right, bottom)),) = document.boxes(start, start + 8)
    ink = draw.textbbox((100 + draw.textlength("The total is ", font=font), 220), "1,234.50", font=font)
    assert (left, top, right, bottom) == pytest.approx(ink, abs=12)
    assert RecognizedWord("a", (0, 0, 1, 1)) == ("a", (0, 0, 1, 1))
