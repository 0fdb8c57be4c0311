# SPDX-License-Identifier: Apache-2.0
"""Text recognition (OCR): words with boxes become the text of a page's picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .page_numbers import SourcePage
from .scans import MAX_PAGE_PIXELS, PageSource
from .source_document import ShownPage

_SAME_LINE = 0.5  # of the lower of two words, by which both stand on one line
# PDFs' pages are drawn for recognition at about 300 dpi, which is what engines are made for.
PDF_SCALE = 2.0


class RecognizedWord(NamedTuple):
    """A word in a picture: its text, and (left, top, right, bottom) in the picture's pixels."""

    text: str
    box: tuple[float, float, float, float]


Recognizer = Callable[[Image.Image], Iterable[RecognizedWord | tuple[str, Sequence[float]]]]
"""A picture ("L" or "RGB") to its words, in reading order."""


def recognized_page(
    source: PageSource, recognize: Recognizer, number: SourcePage | None = None, scale: float = 1.0
) -> ShownPage:
    """
    A page with the text that a recogniser finds in its picture.

    Args:
        scale: what the page is drawn at for it, where that is no larger than `MAX_PAGE_PIXELS`.

    Raises:
        ValueError: the recogniser gave something else than words with boxes.
    """
    height, width = source.size
    scale = min(scale, math.sqrt(MAX_PAGE_PIXELS / (height * width)))
    picture = source.draw(max(1, round(height * scale)), max(1, round(width * scale)))
    words = [_checked(word) for word in recognize(picture)]
    text, boxes = _written(word for word in words if word.text)
    return ShownPage.of(source, text, boxes / (picture.size * 2), number)


def tesseract(languages: str = "eng", config: str = "") -> Recognizer:
    """
    Recognition by tesseract: `pip install 'transformers-hybridctx[ocr]'`, and `apt install tesseract-ocr`.

    Args:
        languages: as tesseract names them, such as "eng" or "deu+fra"; Debian's package of one is `tesseract-ocr-deu`.
        config: other options of its command line, such as "--psm 6".

    Raises:
        ValueError: tesseract, its Python package, or one of the languages is not there.
    """
    try:
        import pytesseract
    except ImportError as error:
        raise ValueError(
            "text recognition needs the package pytesseract: pip install 'transformers-hybridctx[ocr]'"
        ) from error
    try:
        known = set(pytesseract.get_languages(""))
    except (pytesseract.TesseractNotFoundError, OSError) as error:
        raise ValueError("text recognition needs the program tesseract: apt install tesseract-ocr") from error
    missing = [language for language in languages.split("+") if language not in known]
    if missing:
        raise ValueError(
            f"tesseract has no language {missing[0]!r}, only {', '.join(sorted(known))}; on Debian: "
            f"apt install tesseract-ocr-{missing[0]}"
        )

    def recognize(picture: Image.Image) -> list[RecognizedWord]:
        try:
            found: dict[str, list[Any]] = pytesseract.image_to_data(
                picture, lang=languages, config=config, output_type=pytesseract.Output.DICT
            )
        except pytesseract.TesseractError as error:
            raise ValueError(f"tesseract failed: {error}") from error
        sides = zip(found["left"], found["top"], found["width"], found["height"], strict=True)
        return [
            RecognizedWord(text.strip(), (left, top, left + width, top + height))
            for text, (left, top, width, height) in zip(found["text"], sides, strict=True)
            if text.strip()
        ]

    return recognize


def _checked(word: Any) -> RecognizedWord:
    try:
        text, box = word
        left, top, right, bottom = map(float, box)
    except (TypeError, ValueError) as error:
        raise ValueError(f"ocr= gives words as (text, (left, top, right, bottom)), not {word!r:.80}") from error
    if not isinstance(text, str) or not (
        left <= right and top <= bottom and math.isfinite(left + top + right + bottom)
    ):
        raise ValueError(f"ocr= gives words as (text, (left, top, right, bottom)) in pixels, not {word!r:.80}")
    return RecognizedWord(" ".join(text.split()), (left, top, right, bottom))


def _written(words: Iterable[RecognizedWord]) -> tuple[str, np.ndarray]:
    """(the words as lines, float64 `[characters, 4]` boxes in pixels); a word's characters share its width evenly."""
    pieces: list[str] = []
    boxes: list[tuple[float, float, float, float]] = []
    last: RecognizedWord | None = None
    for word in words:
        if last is not None:
            pieces.append(" " if _goes_on(last, word) else "\n")
            boxes.append((math.nan,) * 4)
        left, top, right, bottom = word.box
        step = (right - left) / len(word.text)
        boxes += [(left + step * place, top, left + step * (place + 1), bottom) for place in range(len(word.text))]
        pieces.append(word.text)
        last = word
    return "".join(pieces), np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _goes_on(last: RecognizedWord, word: RecognizedWord) -> bool:
    """Whether a word stands behind the last one on its line."""
    shared = min(last.box[3], word.box[3]) - max(last.box[1], word.box[1])
    lower = min(last.box[3] - last.box[1], word.box[3] - word.box[1])
    return shared >= _SAME_LINE * lower and word.box[2] > last.box[0]


__all__ = ["RecognizedWord", "Recognizer", "recognized_page", "tesseract"]
