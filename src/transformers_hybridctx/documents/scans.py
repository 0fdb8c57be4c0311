# SPDX-License-Identifier: Apache-2.0
"""Page pictures, such as scans, as a document: pages whose text is not known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..rendering.characters import CharRange


class ScannedPages:
    """Page pictures as a document: pages whose text is not known.

    Args:
        images: PIL images, or uint8 arrays [height, width], [height, width, 1], [height, width, 3 or 4].
    """

    text = ""
    undrawable: tuple[tuple[int, str], ...] = ()

    def __init__(self, images: Sequence[Any]) -> None:
        self.images = [_as_picture(image, number) for number, image in enumerate(images, start=1)]
        self.num_pages = len(self.images)

    def page_size(self, page: int, scale: float = 1.0) -> tuple[int, int]:
        """(height, width) in pixels."""
        width, height = self.images[page].size
        return max(1, round(height * scale)), max(1, round(width * scale))

    def page_of(self, char_index: int) -> int:
        return 0

    def page_span(self, page: int) -> CharRange:
        return 0, 0

    def draw_pages(self, scale: float) -> Iterator[Image.Image]:
        for page, image in enumerate(self.images):
            height, width = self.page_size(page, scale)
            yield image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)


def _as_picture(image: Any, number: int) -> Image.Image:
    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[:, :, 0]
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
            raise ValueError(
                f"page image {number} is an array of {array.dtype} {list(array.shape)}; "
                "give uint8 [height, width] or [height, width, 3], or a PIL image"
            )
        if not array.size:
            raise ValueError(f"page image {number} has no pixels: {array.shape[1]} x {array.shape[0]}; leave it out")
        return Image.fromarray(array)
    if not all(image.size):
        raise ValueError(f"page image {number} has no pixels: {image.size[0]} x {image.size[1]}; leave it out")
    return image


def is_picture(value: Any) -> bool:
    return isinstance(value, (Image.Image, np.ndarray))
