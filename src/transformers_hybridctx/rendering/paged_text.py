# SPDX-License-Identifier: Apache-2.0
"""What every document answers whose pages show a text that is known."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from .settings import RenderConfig

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Line:
    """Characters [start, end) of the text on one line; box is (left, top, right, bottom) in pixels at scale 1."""

    page: int
    start: int
    end: int
    box: Box


class PagedText(ABC):
    """A text on pages. Where a scale is asked for, None is the document's own: 1, or what its pages were drawn at.

    Attributes:
        text, config: what was typeset, and how.
        lines: a sequence of `Line`, top to bottom.
        num_pages: number of pages.
        undrawable: [(position, character), ...] that no font has; a hollow box stands for each on its line.
    """

    text: str
    config: RenderConfig
    num_pages: int
    undrawable: list[tuple[int, str]]

    @property
    def only_scale(self) -> float | None:
        """The one scale that the pages may have; None where any will do."""
        return self.config.only_scale

    @property
    def unknown_pages(self) -> Sequence[int]:
        """Pages that show more than the text has of them, such as scans."""
        return ()

    @property
    @abstractmethod
    def lines(self) -> Sequence[Line]: ...

    @abstractmethod
    def page_size(self, page: int, scale: float | None = None) -> tuple[int, int]:
        """(height, width) of a page in pixels, without drawing it. An unknown page is an IndexError."""

    @abstractmethod
    def page_of(self, char_index: int) -> int:
        """The page of a character; white space dropped at a line break counts to the line before it."""

    @abstractmethod
    def page_span(self, page: int) -> tuple[int, int]:
        """Characters [start, end) of a page. The spans of all pages tile the text: white space at a break goes to the
        page before it.
        """

    @abstractmethod
    def boxes(self, start: int, end: int, scale: float | None = None) -> list[tuple[int, Box]]:
        """[(page, (left, top, right, bottom)), ...] of characters [start, end), top to bottom, in pixels.

        One box a line, more where right-to-left script puts neighbours apart; none for white space at a line break.
        A character inside a cluster (a letter with its accents, a ligature) has the cluster's box. Boxes end where the
        page does, which a crop may put inside a line's height.
        """

    @abstractmethod
    def spans_in_box(self, page: int, box: Box, scale: float | None = None) -> list[tuple[int, int]]:
        """Characters that a region (left, top, right, bottom) of a page shows, whole or in part: [(start, end),
        ...].
        """


def check_scale(scale: float, only: float | None = None) -> None:
    """ValueError unless scale is a finite number greater than 0, and the only one of a config that has but one."""
    if not isinstance(scale, (int, float)) or not math.isfinite(scale) or scale <= 0:
        raise ValueError(f"scale={scale!r} must be a finite number greater than 0; 1.0 draws at the config's dpi")
    if only is not None and scale != only:
        raise ValueError(
            f"scale={scale!r} would take the cells apart: line_breaking='cells' ties each to one visual token, so its "
            f"pages have the scale {only:g} only"
        )
