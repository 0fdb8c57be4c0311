# SPDX-License-Identifier: Apache-2.0
"""Glyphs as FreeType draws them by the font's own hints: sharper where letters are small, and the same bytes only where
Pillow brings the same FreeType.
"""

from __future__ import annotations

import functools

import numpy as np
from PIL import ImageFont

from .fonts import FontFace


class HintedFace:
    """One face at one size. Only glyphs that stand for a character can be asked for."""

    def __init__(self, face: FontFace, pixels_per_em: float) -> None:
        self.face = face
        self.font = ImageFont.truetype(
            face.file, pixels_per_em, index=face.index, layout_engine=ImageFont.Layout.BASIC
        )

    @functools.cached_property
    def characters(self) -> dict[int, str]:
        """A character for each glyph."""
        return {self.face.glyph(code): chr(code) for code in sorted(self.face.characters, reverse=True)}

    def draw(self, glyph: int, shift: float) -> tuple[np.ndarray, int, int] | None:
        """The glyph moved to the right by a part of a pixel: (uint8 [h, w], left, top) from its origin; None if no
        character has it.
        """
        character = self.characters.get(glyph)
        if character is None:
            return None
        mask, (left, top) = self.font.getmask2(character, mode="L", anchor="ls", start=(shift, 0))
        width, height = mask.size
        return np.array(mask, dtype=np.uint8).reshape(height, width), left, top


def pasted(
    images: np.ndarray, lefts: np.ndarray, top: int, drawn: dict[int, tuple[np.ndarray, int, int]]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Images as `fill_outlines` returns them, of which those named in `drawn` are replaced."""
    high = min([top, *(place for _, _, place in drawn.values())])
    low = max([top + images.shape[1], *(place + image.shape[0] for image, _, place in drawn.values())])
    wide = max([images.shape[2], *(image.shape[1] for image, _, _ in drawn.values())])
    whole = np.zeros((len(images), low - high, wide), dtype=np.uint8)
    whole[:, top - high : top - high + images.shape[1], : images.shape[2]] = images
    lefts = lefts.copy()
    for number, (image, left, place) in drawn.items():
        height, width = image.shape
        whole[number] = 0
        whole[number, place - high : place - high + height, :width] = image
        lefts[number] = left
    return whole, lefts, high
