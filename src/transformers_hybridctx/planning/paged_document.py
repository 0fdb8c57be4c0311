# SPDX-License-Identifier: Apache-2.0
"""What planning asks of a document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..rendering.characters import CharRange


class PagedDocument(Protocol):
    """What planning asks of a document; `TypesetDocument` is one, a stack of scanned pages (no text) another.

    Documents do not change, and each is equal to itself alone: what is known of one is kept while it lives.
    """

    text: str
    num_pages: int

    @property
    def only_scale(self) -> float | None:
        """The one scale that the pages can have; None where any will do."""
        ...

    @property
    def unknown_pages(self) -> Sequence[int]:
        """Pages that show more than the text has of them."""
        ...

    @property
    def undrawable(self) -> Sequence[tuple[int, str]]: ...

    def page_size(self, page: int, scale: float = 1.0) -> tuple[int, int]:
        """(height, width) in pixels; pages of one size at scale 1 and at 0.5 are of one size at every scale."""
        ...

    def page_of(self, char_index: int) -> int: ...

    def page_span(self, page: int) -> CharRange: ...
