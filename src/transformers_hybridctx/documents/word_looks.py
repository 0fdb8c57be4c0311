# SPDX-License-Identifier: Apache-2.0
"""What Word files say of looks alone (fonts, sizes, borders, marks of a revision), left out before they are read.

It is most of a file, and pandoc keeps all of it in memory: a table of 13,000 cells takes it 1.1 GB, and 0.4 GB without.
"""

from __future__ import annotations

import re

from .archives import LARGEST_PART, Package
from .hidden_words import STYLES, WORD_PARTS

_LOOKS = (
    "sz|szCs|color|shd|rFonts|bCs|iCs|kern|w|spacing|lang|adjustRightInd|autoSpaceDN|autoSpaceDE|widowControl|"
    "snapToGrid|suppressAutoHyphens|contextualSpacing|proofErr|trHeight|tcW|hideMark|vAlign"
)
_BORDERS = "pBdr|tabs|tblBorders|tblCellMar|tcBorders|tcMar"
_MOST_BYTES = 4 * LARGEST_PART
# A font of symbols says which characters are meant.
_LOOK = re.compile(
    rf"<w:(?:{_LOOKS})(?=[ /])(?![^<>]*(?:Symbol|dings))[^<>]*/>"
    rf"|<w:({_BORDERS})>(?:<w:\w+ [^<>]*/>)*</w:\1>".encode()
)
_REVISION = re.compile(rb' w:rsid\w*="\w*"')


def drop_looks(package: Package, name: str) -> None:
    """Leave out what says nothing of the words, their order or their numbers."""
    for part in package.namelist():
        is_looked_through = part == STYLES or WORD_PARTS.fullmatch(part)
        if is_looked_through and package.getinfo(part).file_size <= _MOST_BYTES:
            content = package.read(part)
            plain = _REVISION.sub(b"", _LOOK.sub(b"", content))
            if plain != content:
                package.replace({part: plain})


__all__ = ["drop_looks"]
