# SPDX-License-Identifier: Apache-2.0
"""The text of a PDF's page."""

from __future__ import annotations

import re
from typing import Any


def page_text(page: Any) -> str:
    """A page's text, with the hyphens at line ends that PDFium marks as such."""
    textpage = page.get_textpage()
    try:
        text = textpage.get_text_bounded().replace("\r\n", "\n")
    finally:
        textpage.close()
    return re.sub(r"[\ufffe\x02]\n?", "-\n", text)


def is_drawn(page: Any) -> bool:
    """Whether anything is on the page."""
    return next(page.get_objects(), None) is not None
