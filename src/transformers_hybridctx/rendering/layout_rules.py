# SPDX-License-Identifier: Apache-2.0
"""What differs between ways to lay a text out. A rule set is one object without state; what holds for all is in the
callers: `fonts`, `typesetting`, `pagination`, `page_geometry`, `character_map` and `rasterizing`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np

from .characters import SPACE
from .line_breaking import LineBreaker
from .line_table import NO_POSITIONS, LineTable
from .manuscript import BrokenLines, Manuscript
from .settings import RenderConfig


class Geometry(Protocol):
    """What rules ask of a document's `PageGeometry`."""

    config: RenderConfig
    lines: LineTable
    ascent: float
    pixels_per_point: float

    def baseline_rows(self, first: int, last: int, scale: float = 1.0) -> np.ndarray: ...

    def paragraph_extents(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...

    def blocks_end(self, first: int, last: int) -> tuple[int, int]: ...

    def depth(self, number: int) -> float | None: ...


class LayoutRules(ABC):
    """One way to lay text out. Positions are those of the displayed text; lengths are points unless said."""

    newline: str
    """The pattern of one newline."""
    keeps_lines_together = False
    """Whether a paragraph's first line does not stay alone at the foot of a column."""
    squeezes_lines = False
    """Whether lines may run over by a part of their spaces, which then shrink."""
    stretches_picture = False
    """Whether horizontal_scale stretches the finished picture; else letters are drawn wider, which keeps them sharp."""
    pen_rounding = 0.5
    """What is added to the pen's place in quarters of a pixel before it is cut down to a whole one."""

    @abstractmethod
    def is_newline(self, character: str) -> bool: ...

    @abstractmethod
    def white_space_advance(self, character: str, own: int | None, space: int, em: int) -> int:
        """How wide white space is. own: by the font, None where it has none; space: that of U+0020."""

    def prepare(self, manuscript: Manuscript) -> None:
        """Change what characters are, or how wide, before marks and complex script are looked at."""
        return None

    def merged_spaces(self, manuscript: Manuscript) -> np.ndarray:
        """Positions of spaces that are one with the space before them: int64."""
        return NO_POSITIONS

    def set_tabs(self, manuscript: Manuscript, space: int) -> None:
        """Change the widths of tabs, when all other widths are known. space: the width of U+0020."""
        return None

    def shown_hyphens(self, manuscript: Manuscript, broken: BrokenLines) -> np.ndarray:
        """Positions of soft hyphens that are drawn, each at the end of a line: int64."""
        return NO_POSITIONS

    def breaking_spaces(self, codes: np.ndarray, flags: np.ndarray) -> np.ndarray:
        """Which characters of a stretch of text are spaces that lines may break at: bool."""
        return np.asarray((flags & SPACE) != 0)

    @abstractmethod
    def line_breaker(self, config: RenderConfig, units: int, manuscript: Manuscript) -> LineBreaker: ...

    def drawn_lines(self, broken: BrokenLines, group: int | None) -> BrokenLines:
        """Those lines that take room on a page. group: newlines to a paragraph, where they break lines."""
        return broken

    def first_top(self, config: RenderConfig, ascent: float) -> float:
        """The top of a column's first line on the page."""
        return config.margin_y + config.frame_padding

    @abstractmethod
    def rows(
        self, config: RenderConfig, broken: BrokenLines, paragraphs: np.ndarray, forced: np.ndarray, last: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(column, counted through all pages; row) of each line. forced: lines that begin a page; last: lines that end
        at a newline.
        """

    def baseline_rows(self, geometry: Geometry, first: int, last: int, scale: float) -> np.ndarray:
        """Pixel rows of the baselines of lines [first, last) of whole pages, int64: the nearest ones."""
        tops = geometry.lines.tops[first:last]
        down = geometry.pixels_per_point * scale
        return np.floor((tops + geometry.ascent) * down + 0.5).astype(np.int64)

    def block_tops(self, tops: np.ndarray, heads: np.ndarray) -> np.ndarray:
        """Tops of the blocks behind paragraphs. heads: which of them begin a column."""
        return tops

    def cropped_height(self, geometry: Geometry, first: int, last: int) -> int:
        """Pixels at scale 1 that are left of a page of lines [first, last) when it ends margin_y below its content."""
        config = geometry.config
        bottom = float(geometry.lines.tops[first:last].max()) + config.line_height
        return math.ceil((bottom + config.margin_y + config.frame_padding) * geometry.pixels_per_point - 1e-6)


def rows_of_column(config: RenderConfig) -> int:
    """Lines that a column holds where paragraphs keep no distance."""
    return math.floor(config.text_height / config.line_height + 1e-9)


def filled_columns(forced: np.ndarray, height: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """(column, counted through all pages; place in it) of items that fill columns of `height`, `columns` to a page.

    forced: bool, items that begin a page.
    """
    segments = np.flatnonzero(forced)
    if not len(segments) or segments[0] != 0:
        segments = np.append(0, segments)
    lengths = np.diff(np.append(segments, len(forced)))
    pages = -(-lengths // (height * columns))
    columns_before = np.append(0, np.cumsum(pages)[:-1]) * columns
    place = np.arange(len(forced)) - np.repeat(segments, lengths)
    return np.repeat(columns_before, lengths) + place // height, place % height
