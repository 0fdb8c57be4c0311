# SPDX-License-Identifier: Apache-2.0
"""The text of a PDF's page, in reading order: what is painted, whichever way it is turned; what is not, apart from it."""

from __future__ import annotations

import ctypes
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import pypdfium2.raw as pdfium

from .pdf_characters import Box, Character, Entry, with_entries
from .pdf_survey import PAINTED_TWICE, SMALLEST_SIZE, PageSurvey

Proof = Callable[[int, int], np.ndarray]
"""Draws a page as it is shown: (height, width) -> grey, uint8 [height, width]."""

_SAMPLE = 64
_GARBLED_SHARE = 0.1
_LEAST_CONTRAST = 12
_NEAR = 8.0
_PROOF_PIXELS = 2**21
_LINE_END_HYPHENS = ("\ufffe", "\x02")
_LINE_END_HYPHEN = re.compile(r"[\ufffe\x02]\n?")
# Private use, replacement characters, and controls that are no white space: of a font without a map to Unicode.
_NO_TEXT = re.compile("[\ue000-\uf8ff\U000f0000-\U0010ffff\ufffd\x00-\x01\x03-\x08\x0e-\x1f\x7f-\x9f]")


# Where TeX's encodings (OT1, T1) have ligatures and quotation marks.
_OF_TEX = {
    **{start + place: chr(0xFB00 + place) for start in (0x0B, 0x1B) for place in range(5)},
    **{0x10: "\u201c", 0x11: "\u201d", 0x15: "\u2013", 0x16: "\u2014"},
}
# Letters, digits and signs of Europe's languages, and what is set around them.
_EUROPEAN = re.compile("[ -~\u00a0-\u024f\u0370-\u052f\u2010-\u2044\u20ac\u2122\ufb00-\ufb04]+")


@dataclass(frozen=True)
class PageText:
    """The text of a page.

    Attributes:
        text: what is read, in reading order, form fields included.
        hidden: text that the page holds and never shows.
        ocr_count: characters that lie unseen over a picture of them, as text recognition writes them.
        is_garbled: whether much of it is no text: its fonts have no (usable) map to Unicode.
        boxes: float64 `[characters, 4]`, where each is shown: (left, top, right, bottom) as shares of the page's width
            and height, nan where there is none; None where they were not asked for.
    """

    text: str
    hidden: str = ""
    ocr_count: int = 0
    is_garbled: bool = False
    boxes: np.ndarray | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, characters: Sequence[Character], hidden: str, boxes: np.ndarray | None = None) -> PageText:
        inked = [one for one in characters if not one.text.isspace()]
        bad = sum(not one.is_mapped or bool(_NO_TEXT.match(one.text)) for one in inked)
        text = "".join(one.text for one in characters)
        return cls(text, hidden, sum(one.is_unpainted for one in inked), bad > _GARBLED_SHARE * len(inked), boxes)


def page_text(
    page: Any, seen: PageSurvey, entries: Sequence[Entry], proof: Proof, with_boxes: bool = False
) -> PageText:
    """The text of a page (pypdfium2's), with what form fields and annotations hold; `proof` is asked in doubt only."""
    textpage = page.get_textpage()
    try:
        plain = _as_pdfium_gives_it(textpage) if seen.is_plain and not entries else None
        if plain is not None and not with_boxes:
            return PageText(plain)
        characters = _characters(textpage, is_plain=plain is not None)
    finally:
        textpage.close()
    if not seen.is_plain:
        characters = _painted_once(_turned_upright(page, characters))
    read, hidden = _by_sight(characters, seen, page.get_rotation(), proof) if not seen.is_plain else (characters, "")
    written = with_entries(read, entries)
    boxes = _shown_boxes(written, seen.box, page.get_rotation()) if with_boxes else None
    return PageText.of(written, hidden, boxes)


def _shown_boxes(characters: Sequence[Character], page: Box, rotation: int) -> np.ndarray:
    """float64 `[characters, 4]`, as `PageText.boxes`."""
    nowhere = (math.nan,) * 4
    found = np.array([one.box or nowhere for one in characters], dtype=np.float64).reshape(-1, 4)
    corners = [_displayed(found[:, x], found[:, y], page, rotation) for x, y in ((0, 1), (2, 3))]
    (u, v), (other_u, other_v) = corners
    return np.stack(
        [np.minimum(u, other_u), np.minimum(v, other_v), np.maximum(u, other_u), np.maximum(v, other_v)], 1
    )


def _as_pdfium_gives_it(textpage: Any) -> str | None:
    """The quick way; None where some of the text has no map to Unicode, or is dropped."""
    count = textpage.count_chars()
    step = max(1, count // _SAMPLE)
    if any(pdfium.FPDFText_HasUnicodeMapError(textpage, index) == 1 for index in range(0, count, step)):
        return None
    text = textpage.get_text_bounded()
    if len(text) < count or max(text, default="") > "\uffff" or _NO_TEXT.search(text):
        return None  # of characters above U+FFFF, PDFium takes some for two, and drops as many at the end
    return _LINE_END_HYPHEN.sub("-\n", text.replace("\r\n", "\n").replace("\r", " ").replace("\f", "\n"))


def _characters(textpage: Any, is_plain: bool = False) -> list[Character]:
    """All characters that a page holds, in PDFium's order; of a plain page, what else there is to know is known."""
    characters: list[Character] = []
    unmapped: dict[int, dict[int, str]] = {}  # font -> places of its characters and their codes
    runs: dict[int, tuple[int, bool, float]] = {}  # what all characters of one have in common
    box = pdfium.FS_RECTF()
    ends_line = False
    high = 0
    for index in range(textpage.count_chars()):
        code = pdfium.FPDFText_GetUnicode(textpage, index)
        if 0xD800 <= code < 0xDC00:  # PDFium has two characters for one of those above U+FFFF
            high = code
            continue
        if high and 0xDC00 <= code < 0xE000:
            code += ((high - 0xD800) << 10) + 0x10000 - 0xDC00
        high = 0
        text = chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else "\ufffd"
        angle = characters[-1].angle if characters else 0
        if ends_line:  # behind a hyphen, where PDFium may leave it out
            characters.append(Character("\n", angle=angle))
        ends_line = text in _LINE_END_HYPHENS
        if pdfium.FPDFText_IsGenerated(textpage, index) == 1:
            if text == " " or (text == "\n" and not _ends_behind_hyphen(characters)):
                characters.append(Character(text, angle=angle))
            elif text not in "\r\n":
                characters.append(Character("-", angle=angle))
            continue
        pdfium.FPDFText_GetLooseCharBox(textpage, index, box)  # as wide as it advances, as high as its font
        found = Character(
            "-" if ends_line else " " if text in "\r\n\f" else text, (box.left, box.bottom, box.right, box.top)
        )
        if code > 0xFFFF and characters and characters[-1][:2] == found[:2]:
            continue  # Word's PDFs map each letter of an equation to itself twice
        if not is_plain:
            item = pdfium.FPDFText_GetTextObject(textpage, index)
            run = ctypes.cast(item, ctypes.c_void_p).value or 0 if item else 0
            if not run or run not in runs:
                runs[run] = _run_of(textpage, index, item)
            angle, is_unpainted, size = runs[run]
            is_mapped = pdfium.FPDFText_HasUnicodeMapError(textpage, index) != 1
            found = Character(found.text, found.box, angle, is_mapped, run, is_unpainted, size)
            if not is_mapped and item:
                font = ctypes.cast(pdfium.FPDFTextObj_GetFont(item), ctypes.c_void_p).value or 0
                unmapped.setdefault(font, {})[len(characters)] = text if text in "\r\f" else found.text
        characters.append(found)
    for places in unmapped.values():
        codes = "".join(places.values()).translate(_OF_TEX)
        if _are_characters(codes):
            for place, code in zip(places, codes, strict=True):
                characters[place] = characters[place]._replace(text=code, is_mapped=True)
    return [*characters, Character("\n")] if ends_line else characters


def _are_characters(codes: str) -> bool:
    """Whether the codes of a font without a map are its characters, as in pictures by matplotlib and in many invoices.

    Else they are numbers of glyphs: digits and blanks are controls then, small letters are capitals or signs.
    """
    letters = [one for one in codes if one.isalpha()]
    return (
        bool(_EUROPEAN.fullmatch(codes))
        and 2 * sum(one.isalnum() or one == " " for one in codes) >= len(codes)
        and 3 * sum(one.islower() for one in letters) >= len(letters)
    )


def _ends_behind_hyphen(characters: Sequence[Character]) -> bool:
    return len(characters) > 1 and characters[-1].text == "\n" and characters[-2].text == "-"


def _run_of(textpage: Any, index: int, item: Any) -> tuple[int, bool, float]:
    """(angle, whether it is unpainted, size as it is shown, in points) of what is painted together with a character."""
    matrix = pdfium.FS_MATRIX()
    pdfium.FPDFText_GetMatrix(textpage, index, matrix)
    return (
        round(math.degrees(pdfium.FPDFText_GetCharAngle(textpage, index)) / 90) * 90 % 360,
        bool(item) and pdfium.FPDFTextObj_GetTextRenderMode(item) in (3, 7),
        float(pdfium.FPDFText_GetFontSize(textpage, index)) * math.hypot(matrix.c, matrix.d),
    )


def _turned_upright(page: Any, characters: list[Character]) -> list[Character]:
    """The characters in the order in which they are read once each direction of text has been turned upright.

    PDFium orders the text of a page from its top down, whichever way the text runs, so the page is turned (and back).
    """
    rotation = page.get_rotation()
    angles = Counter(one.angle for one in characters if one.box is not None)
    if not angles or (set(angles) == {0} and rotation == 0):
        return characters
    result: list[Character] = []
    try:
        for angle in sorted(angles, key=lambda angle: (-angles[angle], angle)):
            ordered = characters  # as the page is turned already
            if -angle % 360 != rotation:
                page.set_rotation(-angle % 360)
                textpage = page.get_textpage()
                try:
                    ordered = _characters(textpage)
                finally:
                    textpage.close()
            turned = [one for one in ordered if one.angle == angle]
            result += [Character("\n")] * bool(result) + (turned if angle == 0 else _with_spaces(turned, angle))
    finally:
        page.set_rotation(rotation)
    return result


def _painted_once(characters: Sequence[Character]) -> list[Character]:
    """Without characters that lie on the same ones of another text, as bold print and shadows are made."""
    seen: dict[tuple[str, int, int], list[Character]] = {}
    result: list[Character] = []
    for one in characters:
        if one.box is None:
            result.append(one)
            continue
        x, y = one.middle
        near = PAINTED_TWICE * (one.box[3] - one.box[1])
        column, row = (int(side // _NEAR) if math.isfinite(side) else 0 for side in (x, y))
        around = (seen.get((one.text, column + i, row + j), ()) for i in (-1, 0, 1) for j in (-1, 0, 1))
        if any(
            other.run != one.run and max(abs(x - other.middle[0]), abs(y - other.middle[1])) <= near
            for cell in around
            for other in cell
        ):
            while result and result[-1].box is None and result[-1].text.isspace():
                result.pop()  # which stood between the two
            continue
        seen.setdefault((one.text, column, row), []).append(one)
        result.append(one)
    return result


def _with_spaces(characters: Sequence[Character], angle: int) -> list[Character]:
    """Text that runs at an angle, with blanks and line ends where its characters stand apart."""
    result: list[Character] = []
    previous: tuple[float, float, float] | None = None  # where it ended, its middle across, its size
    is_apart = False
    for one in characters:
        if one.box is None:
            is_apart = is_apart or one.text == " "  # a narrow blank, which only PDFium knows
            continue
        start, end, middle = _along(one.box, angle)
        if previous is not None:
            last_end, last_middle, size = previous
            size = max(size, one.size, 1e-3)
            if abs(middle - last_middle) > 0.6 * size or start < last_end - size:
                result.append(Character("\n", angle=angle))
            elif is_apart or start - last_end > 0.25 * size:
                result += [Character(" ", angle=angle)] * (not one.text.isspace() and not result[-1].text.isspace())
        is_apart = False
        result.append(one)
        previous = (end, middle, one.size)
    return result


def _along(box: Box, angle: int) -> tuple[float, float, float]:
    """(start, end, middle across) of a box in the direction of text that is turned clockwise by `angle`."""
    left, bottom, right, top = box
    if angle in (0, 180):
        along = (left, right) if angle == 0 else (-right, -left)
        return *along, (bottom + top) / 2
    along = (-top, -bottom) if angle == 90 else (bottom, top)
    return *along, (left + right) / 2


def _by_sight(
    characters: Sequence[Character], seen: PageSurvey, rotation: int, proof: Proof
) -> tuple[list[Character], str]:
    """(what a reader of the page sees, or a recognised picture shows; what nobody sees)."""
    read: list[Character] = []
    hidden: list[str] = []
    picture: np.ndarray | None = None
    for (_, unpainted), group in groupby(characters, lambda one: (one.run if one.box else None, one.is_unpainted)):
        run = list(group)
        inked = [one for one in run if one.box is not None and not one.text.isspace()]
        if not inked:
            read += run
            continue
        if unpainted:
            is_seen = all(seen.is_covered(*one.middle) for one in (inked[0], inked[-1]))
        elif max(one.size for one in inked) < SMALLEST_SIZE or not any(seen.holds(*one.middle) for one in inked):
            is_seen = False
        else:
            if picture is None:
                picture = _drawn(seen.box, rotation, proof)
            if not _has_contrast(picture, inked, seen.box, rotation):
                is_seen = False
            else:  # a part of it may be covered, as where words were blacked out
                for is_blank, word in groupby(run, lambda one: one.text.isspace()):
                    letters = list(word)
                    if is_blank or _has_contrast(picture, letters, seen.box, rotation):
                        read += letters
                        continue
                    hidden.append("".join(one.text for one in letters))
                    while read and read[-1].text == " ":
                        read.pop()
                continue
        if is_seen:
            read += run
        else:
            hidden.append("".join(one.text for one in run))
    return _without_blank_lines(read), " ".join(hidden)


def _without_blank_lines(characters: Sequence[Character]) -> list[Character]:
    """White space that PDFium made up around what is left out goes with it."""
    result: list[Character] = []
    for one in characters:
        if one.box is None and one.text in " \n" and (not result or result[-1].text == "\n"):
            continue
        if one.box is None and one.text == "\n" and result[-1].box is None and result[-1].text == " ":
            result.pop()
        result.append(one)
    while result and result[-1].box is None and result[-1].text.isspace():
        result.pop()
    return result


def _drawn(box: Box, rotation: int, proof: Proof) -> np.ndarray:
    width, height = max(box[2] - box[0], 1.0), max(box[3] - box[1], 1.0)
    if rotation % 180:
        width, height = height, width
    scale = min(2.0, math.sqrt(_PROOF_PIXELS / (width * height)))
    return proof(max(1, round(height * scale)), max(1, round(width * scale)))


def _has_contrast(picture: np.ndarray, characters: Sequence[Character], page: Box, rotation: int) -> bool:
    """Whether anything is seen where the characters stand; of those without a place, nothing is known."""
    boxes = [one.box for one in characters if one.box is not None]
    if not boxes:
        return True
    left, bottom = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, top = max(box[2] for box in boxes), max(box[3] for box in boxes)
    corners = [_displayed(x, y, page, rotation) for x, y in ((left, bottom), (right, top))]
    height, width = picture.shape
    columns = sorted(u * width for u, _ in corners)
    rows = sorted(v * height for _, v in corners)
    area = picture[
        max(0, math.floor(rows[0]) - 1) : math.ceil(rows[1]) + 1,
        max(0, math.floor(columns[0]) - 1) : math.ceil(columns[1]) + 1,
    ]
    return bool(area.size) and int(area.max()) - int(area.min()) >= _LEAST_CONTRAST


def _displayed(x: Any, y: Any, page: Box, rotation: int) -> tuple[Any, Any]:
    """A point of the page as shares of the width and height at which it is shown, from the top left."""
    left, bottom, right, top = page
    u, v = (x - left) / max(right - left, 1e-6), (y - bottom) / max(top - bottom, 1e-6)
    return {0: (u, 1 - v), 90: (v, u), 180: (1 - u, v), 270: (1 - v, 1 - u)}[rotation % 360]
