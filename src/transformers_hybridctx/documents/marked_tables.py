# SPDX-License-Identifier: Apache-2.0
"""Tables that pandoc reads in part, handed through it: their borders as paragraphs, which become tables of HTML again.

pandoc's readers of OpenDocument and RTF drop what stands in cells but plain paragraphs: tables, headings. As the tables
are taken apart before and put together after it, everything else in them is read as it is outside of tables.
"""

from __future__ import annotations

import re

# Characters for private use, which no text of a document has a reason to hold, around what stands in their place.
_OPENS, _CLOSES = "\uf8f0", "\uf8f1"
_MARK = re.compile(
    rf"<(p|h\d)\b[^>]*>(?:<(?:span|strong|em)\b[^>]*>)*{_OPENS}(/?(?:table|tr|t[dh])(?: (?:col|row)span=\d+)*){_CLOSES}"
    r"(?:</(?:span|strong|em)>)*</\1>"
)
_ANY_MARK = re.compile(f"{_OPENS}[^{_CLOSES}]*{_CLOSES}")


def mark(tag: str) -> str:
    """A paragraph's text that stands for a tag of HTML: `table`, `tr`, `td colspan=2`, or the end of one (`/td`)."""
    return f"{_OPENS}{tag}{_CLOSES}"


def cell_mark(columns: int = 1, rows: int = 1, is_heading: bool = False) -> str:
    """The mark of a cell's beginning, with what it spans."""
    spans = f" colspan={columns}" * (columns > 1) + f" rowspan={rows}" * (rows > 1)
    return mark(("th" if is_heading else "td") + spans)


def with_tables(html: str) -> str:
    """A page in which the paragraphs that are marks are tags."""
    return _ANY_MARK.sub("", _MARK.sub(r"<\2>", html)) if _OPENS in html else html


def without_marks(text: str) -> str:
    """Words that may stand between marks, without these."""
    return " ".join(_ANY_MARK.sub("", text).split()) if _OPENS in text else text


__all__ = ["cell_mark", "mark", "with_tables", "without_marks"]
