# SPDX-License-Identifier: Apache-2.0
"""Pages whose text is not known, such as scans, as a document: they are drawn when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..rendering.characters import CharRange
from .pictures import GivenPicture

MAX_PAGE_PIXELS = 2**24
"""Most pixels that a page is drawn with (4,096 x 4,096); a larger one is drawn at a smaller resolution."""


class PageSource(Protocol):
    """One page that can be drawn at any size, any number of times, by any thread."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels at scale 1, known without drawing."""
        ...

    def draw(self, height: int, width: int) -> Image.Image:
        """The page in "L" or "RGB", on white paper; ValueError where it turns out to be damaged."""
        ...


class ScannedPages:
    """Pages whose text is not known, as a document. It holds where pages come from, never all pages drawn.

    Attributes:
        sources: what each page is drawn from.

    Args:
        images: page sources, PIL images (of one with several frames each is a page), or uint8 arrays [height, width],
            [height, width, 1], [height, width, 3 or 4].

    Raises:
        ValueError: an array of another kind; a page without pixels.
    """

    text = ""
    undrawable: tuple[tuple[int, str], ...] = ()
    only_scale: float | None = None

    def __init__(self, images: Sequence[Any]) -> None:
        self.sources: list[PageSource] = [
            source for number, image in enumerate(images, start=1) for source in _sources_of(image, number)
        ]
        self.num_pages = len(self.sources)

    @property
    def unknown_pages(self) -> Sequence[int]:
        return range(self.num_pages)

    def page_size(self, page: int, scale: float = 1.0) -> tuple[int, int]:
        """(height, width) in pixels, at most `MAX_PAGE_PIXELS` in all."""
        height, width = self.sources[page].size
        scale = min(scale, math.sqrt(MAX_PAGE_PIXELS / (height * width)))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def page_of(self, char_index: int) -> int:
        return 0

    def page_span(self, page: int) -> CharRange:
        return 0, 0

    def draw_pages(self, scale: float, pages: Iterable[int] | None = None) -> Iterator[Image.Image]:
        """Pages in "L" or "RGB", each drawn when it is asked for; all of them, or those of the given indices.

        Raises:
            ValueError: a page is damaged; the message names it.
        """
        for page in range(self.num_pages) if pages is None else pages:
            yield self.sources[page].draw(*self.page_size(page, scale))


def _sources_of(image: Any, number: int) -> Sequence[PageSource]:
    if isinstance(image, Image.Image):
        if not all(image.size):
            raise ValueError(f"page image {number} has no pixels: {image.size[0]} x {image.size[1]}; leave it out")
        return GivenPicture.frames_of(image, f"page image {number}")
    if not isinstance(image, np.ndarray):
        return [image]
    array = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(
            f"page image {number} is an array of {array.dtype} {list(array.shape)}; "
            "give uint8 [height, width] or [height, width, 3], or a PIL image"
        )
    if not array.size:
        raise ValueError(f"page image {number} has no pixels: {array.shape[1]} x {array.shape[0]}; leave it out")
    return GivenPicture.frames_of(Image.fromarray(array), f"page image {number}")


def is_picture(value: Any) -> bool:
    return isinstance(value, (Image.Image, np.ndarray))
