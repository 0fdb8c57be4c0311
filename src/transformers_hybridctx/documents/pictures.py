# SPDX-License-Identifier: Apache-2.0
"""Pictures as pages: upright, on white paper, in 8 bits; frames of files are decoded one at a time."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PICTURE_PIXELS = 2**27
"""Most pixels of a picture in a file, and of a tile of it; showing one takes up to 12 bytes for each."""
MAX_WEBP_PIXELS = 36_000_000
"""Most pixels of a WebP picture (A4 at 600 dpi), whose decoder takes up to 20 bytes for each."""
MAX_FRAMES = 20_000
"""Most frames of a picture file."""

# What Pillow's readers are known to raise for damaged files.
_DAMAGE = (
    *(
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        LookupError,
        TypeError,
        ArithmeticError,
        AttributeError,
        MemoryError,
    ),
    *(struct.error, Image.DecompressionBombError),
)
_AT_ONCE = 2**20  # pixels
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # orientations that exchange height and width
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_TILE_SIDES = (322, 323)  # of TIFF; a tile may be larger than its picture
# By what they hold, not by their names: Pillow would hand others to programs, or to readers that hardly anyone tries.
_KINDS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")  # MPO is read by the name of JPEG


class _BeyondBoundsError(ValueError):
    """A picture that could be read, but is too large."""


class _Frames:
    """An open picture whose frames are decoded one at a time, whatever threads ask for them."""

    def __init__(self, source: Path | bytes | Image.Image, name: str) -> None:
        self.name = name
        self._source = source
        self._lock = threading.Lock()
        self._open: Image.Image | None = None

    def decoded(self, frame: int, several: bool, size: tuple[int, int]) -> Image.Image:
        """A frame upright, on white paper, no smaller than `size` (height, width) where it has the pixels."""
        with self._lock:
            try:
                if isinstance(self._source, Image.Image):
                    return _frame_of(self._source, frame, several, is_kept=True)
                if self._open is None:
                    self._open = open_picture(self._source)
                if not several:  # a JPEG far larger than it is wanted is decoded smaller
                    self._open.draft(None, size if _is_turned(self._open) else size[::-1])
                page = _frame_of(self._open, frame, several, is_kept=several)
                if not several or frame + 1 == getattr(self._open, "n_frames", 1):
                    self._open = None  # its pixels with it
                return page
            except _DAMAGE as error:
                raise damaged(self.name, error) from error


def _frame_of(picture: Image.Image, frame: int, several: bool, is_kept: bool) -> Image.Image:
    """A frame upright and on paper; of a picture that is kept, pixels of its own."""
    if several:
        picture.seek(frame)  # frames of a GIF build on the ones before: the next one costs least
    page = on_paper(ImageOps.exif_transpose(picture) if _ORIENTATION in picture.getexif() else picture)
    if page is not picture:
        return page
    if is_kept:  # and changed by its next frame, or by who gave it
        return picture.copy()
    picture.load()
    return picture


class GivenPicture:
    """A frame of a picture as a page: a `PageSource`."""

    def __init__(self, frames: _Frames, frame: int, several: bool, size: tuple[int, int]) -> None:
        self.size = size
        self._frames, self._frame, self._several = frames, frame, several

    def draw(self, height: int, width: int) -> Image.Image:
        page = self._frames.decoded(self._frame, self._several, (height, width))
        return page if page.size == (width, height) else page.resize((width, height), Image.Resampling.BICUBIC)

    @classmethod
    def frames_of(cls, source: Path | bytes | Image.Image, name: str) -> Sequence[GivenPicture]:
        """A page for each frame of a file, or of a picture that is in memory.

        Raises:
            ValueError: it is not a picture, damaged, larger than `MAX_PICTURE_PIXELS` (`MAX_WEBP_PIXELS`) or has more
                frames than `MAX_FRAMES`, which is told before anything is decoded.
        """
        try:
            picture = source if isinstance(source, Image.Image) else open_picture(source)
            # The other pictures of an MPO, as phones write them, are previews and depth maps of the first.
            count = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
            if count > MAX_FRAMES:
                raise _BeyondBoundsError(f"{name} has {count:,} frames, more than {MAX_FRAMES:,}; split it up")
            sizes = []
            for frame in range(count if picture.format == "TIFF" else 1):  # of other kinds all frames are alike
                if count > 1:
                    picture.seek(frame)
                _check_pixels(picture, name)
                sizes.append(_upright_size(picture))  # whoever asks a PNG for its EXIF has it decoded
        except _BeyondBoundsError:
            raise
        except _DAMAGE as error:
            raise damaged(name, error) from error
        frames = _Frames(source, name)
        return [cls(frames, frame, count > 1, sizes[min(frame, len(sizes) - 1)]) for frame in range(count)]


def open_picture(source: Path | bytes) -> Image.Image:
    return Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=_KINDS)


def _check_pixels(picture: Image.Image, name: str) -> None:
    is_webp = picture.format == "WEBP"
    most = MAX_WEBP_PIXELS if is_webp else MAX_PICTURE_PIXELS
    way_out = "save it as PNG, which takes less memory," if is_webp else "make it smaller"
    tags = getattr(picture, "tag_v2", {})
    tile = [tags.get(side, 0) for side in _TILE_SIDES]
    for what, (width, height) in (("", picture.size), (" in a tile", tile)):
        if width * height > most:
            raise _BeyondBoundsError(
                f"{name} has {width} x {height} pixels{what}, more than {most:,}; {way_out} or cut it into pages"
            )


def damaged(name: str, error: Exception) -> ValueError:
    # Of bytes, Pillow's own sentence names the object that holds them.
    told = f"it does not begin as one of {', '.join(_KINDS)}" if isinstance(error, UnidentifiedImageError) else error
    return ValueError(f"{name} is not a picture that can be read ({told}); save it again, as PNG")


def _upright_size(picture: Image.Image) -> tuple[int, int]:
    """(height, width) as `ImageOps.exif_transpose` leaves it."""
    if not all(picture.size):
        raise ValueError(f"it has no pixels: {picture.width} x {picture.height}")
    return picture.size if _is_turned(picture) else picture.size[::-1]


def _is_turned(picture: Image.Image) -> bool:
    return picture.getexif().get(_ORIENTATION) in _TURNED


def on_paper(picture: Image.Image) -> Image.Image:
    """The picture in 8 bits, as grey ("L") or "RGB", on white paper where it is transparent."""
    if picture.mode[0] in "IF":
        return Image.fromarray(eight_bits(np.asarray(picture), _white_is_zero(picture)))
    if not picture.has_transparency_data:
        mode = "L" if picture.mode in ("1", "L") else "RGB"
        return picture if picture.mode == mode else picture.convert(mode)
    paper = Image.new("RGB", picture.size, "white")
    step = max(1, _AT_ONCE // picture.width)  # some rows at a time: all at once take three times the memory
    for top in range(0, picture.height, step):
        rows = picture.crop((0, top, picture.width, min(top + step, picture.height))).convert("RGBA")
        paper.paste(rows, (0, top), rows)
    return paper


def _white_is_zero(picture: Image.Image) -> bool:
    tags = getattr(picture, "tag_v2", {})
    return tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def eight_bits(values: np.ndarray, inverted: bool = False) -> np.ndarray:
    """Grey values of 16 or 32 bits, or real ones, as uint8 with their tones.

    What is white is the largest value of the narrowest range that holds all values: 0 to 1 (real numbers only), then
    0 to 2**bits - 1 for 8, 12, 16 and 32 bits (cameras and scanners leave 12 bits in 16). Negative values have no
    range that is meant by them: what there is from the smallest to the largest is stretched.
    """
    # some rows at a time: in double precision a page would take eight times what it takes in the end
    rows = values.reshape(len(values), -1)
    step = max(1, _AT_ONCE // max(1, rows.shape[1]))
    blocks = [slice(start, start + step) for start in range(0, len(rows), step)]
    low, high = 0.0, 0.0
    for block in blocks:
        real = _real(rows[block])
        low, high = min(low, float(real.min(initial=0.0))), max(high, float(real.max(initial=0.0)))
    ranges = [2.0**bits - 1 for bits in (8, 12, 16, 32)]
    if values.dtype.kind == "f":
        ranges.insert(0, 1.0)
    white = next((top for top in ranges if high <= top), high) if low >= 0 else high
    times = 255.0 / max(white - min(low, 0.0), 1e-300)
    grey = np.empty(rows.shape, dtype=np.uint8)
    for block in blocks:
        grey[block] = np.rint((_real(rows[block]) - low) * times).clip(0, 255)
    return (255 - grey if inverted else grey).reshape(values.shape)


def _real(values: np.ndarray) -> np.ndarray:
    """In double precision; what is no number, or has no end, is black."""
    return np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
