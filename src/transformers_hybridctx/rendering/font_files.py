# SPDX-License-Identifier: Apache-2.0
"""How a font is named: its file, and for a collection (.ttc, .otc) the face of it, as in "NotoSansCJK.ttc#2"."""

from __future__ import annotations

import os
import re

_FACE = re.compile(r"(.+)#([0-9]{1,4})", re.DOTALL)


def file_and_face(font: str) -> tuple[str, int]:
    """(the file, the number of the face in it, from 0) of a font's name; a file that is called so is taken as it is."""
    match = _FACE.fullmatch(font)
    return (font, 0) if match is None or os.path.isfile(font) else (match[1], int(match[2]))


def with_face(file: str, face: int) -> str:
    """The name of a face."""
    return f"{file}#{face}" if face else file
