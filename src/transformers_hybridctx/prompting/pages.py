# SPDX-License-Identifier: Apache-2.0
"""Pages of documents, and pictures, as patches: drawn and cut in one place, in the order in which prompts show them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import Any

import numpy as np

from ..documents.joined_document import JoinedDocument, scale_of_part
from ..documents.scans import ScannedPages
from ..documents.source_document import SourceDocument
from ..image_processing_hybridctx import HybridCtxImageProcessor
from ..planning.plan import ContextPlan
from ..progress import tell
from ..rendering.rasterizing import PageRenderer
from ..rendering.rendered_document import RenderedDocument
from ..rendering.settings import RenderConfig
from .conversations import Conversation
from .writing import Prompt

# Pages that are drawn and cut into patches at a time.
_PAGES_AT_ONCE = 32


@lru_cache(maxsize=4)
def renderer_for(config: RenderConfig) -> PageRenderer:
    """The renderer of a config, with the glyphs that it has drawn so far."""
    return PageRenderer(config)


def drawn_pages(document: Any, scale: float) -> Iterable[Any]:
    """Pages at a scale: those that the document has at hand, or freshly drawn ones, one after the other."""
    if isinstance(document, (ScannedPages, SourceDocument)):
        return document.draw_pages(scale)
    if isinstance(document, RenderedDocument) and document.scale == scale:
        return document.pages
    if isinstance(document, JoinedDocument):
        drawn = (drawn_pages(part, scale_of_part(part, scale) or scale) for part in document.parts)
        return chain.from_iterable(drawn)
    return renderer_for(document.config).draw_pages(document, scale)


def drawn_page(document: Any, page: int, scale: float) -> np.ndarray:
    """One page at a scale: uint8 [height, width] or [height, width, 3]."""
    if isinstance(document, (ScannedPages, SourceDocument)):
        return np.asarray(next(document.draw_pages(scale, [page])))
    if isinstance(document, JoinedDocument):
        part, own = document.part_of_page(page)
        return drawn_page(part, own, scale_of_part(part, scale) or scale)
    return renderer_for(document.config).draw_page(document, page, scale)


def scales_of_page(document: Any, page: int, scale: float) -> tuple[float, float]:
    """
    What a page is drawn at, (across, down), where its document is drawn at a scale: cells that are visual tokens keep to
    their own one, and pages as they are have whole pixels, no more than there may be.
    """
    if isinstance(document, JoinedDocument):
        part, own = document.part_of_page(page)
        return scales_of_page(part, own, scale_of_part(part, scale) or scale)
    if isinstance(document, (ScannedPages, SourceDocument)):
        (height, width), (high, wide) = document.page_size(page, 1.0), document.page_size(page, scale)
        return wide / width, high / height
    return scale, scale


@dataclass(frozen=True)
class Patches:
    """Pages or pictures. pixel_values: uint8 [patches, C * patch * patch]; image_grid_thw: int64 [pages, 3]."""

    pixel_values: np.ndarray
    image_grid_thw: np.ndarray

    @classmethod
    def joined(cls, groups: Sequence[Patches]) -> Patches:
        """Patches of several calls; grey ones get three equal channels where others have colour."""
        if len(groups) == 1:
            return groups[0]
        width = max(group.pixel_values.shape[1] for group in groups)
        pixels = [np.tile(group.pixel_values, (1, width // group.pixel_values.shape[1])) for group in groups]
        return cls(np.concatenate(pixels), np.concatenate([group.image_grid_thw for group in groups]))


@dataclass(frozen=True)
class PageCutter:
    """Draws pages and cuts them with an image processor."""

    image_processor: HybridCtxImageProcessor

    def tokens_of_size(self, height: int, width: int) -> int:
        """Visual tokens of a page of so many pixels."""
        return self.image_processor.get_number_of_image_patches(height, width) // self.image_processor.merge_size**2

    def tokens_of(self, patches: Patches) -> list[int]:
        """Visual tokens of each page."""
        counts: list[int] = (patches.image_grid_thw.prod(axis=1) // self.image_processor.merge_size**2).tolist()
        return counts

    def cut(self, pages: list[Any]) -> Patches:
        """Patches of pictures."""
        features = self.image_processor(images=pages, return_tensors="np")
        return Patches(features["pixel_values"], features["image_grid_thw"])

    def read(self, picture: Any) -> tuple[Patches, int]:
        """Patches of one picture, and how many visual tokens they are."""
        patches = self.cut([picture])
        return patches, sum(self.tokens_of(patches))

    def cut_document(self, plan: ContextPlan) -> Patches:
        """Patches of a plan's pages; they are drawn a few at a time, and only their patches are kept."""
        pages = islice(iter(drawn_pages(plan.document, plan.scale)), plan.first_page, None)
        groups: list[Patches] = []
        drawn = 0
        tell("pages drawn", drawn, plan.num_pages)
        while group := list(islice(pages, _PAGES_AT_ONCE)):
            groups.append(self.cut(group))
            tell("pages drawn", drawn := drawn + len(group), plan.num_pages)
        patches = Patches.joined(groups)
        if tuple(self.tokens_of(patches)) != plan.page_tokens:
            raise RuntimeError("the pages take other numbers of visual tokens than planned: page_size is wrong")
        return patches

    def cut_prompts(self, conversations: Sequence[Conversation], prompts: Sequence[Prompt]) -> Patches | None:
        """Patches of all pages and pictures in the order in which the prompts show them; None where there are none."""
        groups = list(self._in_order(conversations, prompts))
        return Patches.joined(groups) if groups else None

    def _in_order(self, conversations: Sequence[Conversation], prompts: Sequence[Prompt]) -> Iterator[Patches]:
        drawn: dict[tuple[int, float, int], Patches] = {}
        for conversation, prompt in zip(conversations, prompts, strict=True):
            for segment in prompt.segments:
                if segment.kind == "image":
                    yield conversation.images[segment.index]
                elif segment.kind == "page" and segment.page == 0:
                    # Several questions about one document share its pages.
                    plan = prompt.plans[segment.index]
                    key = (id(plan.document), plan.scale, plan.first_page)
                    if key not in drawn:
                        drawn[key] = self.cut_document(plan)
                    yield drawn[key]


__all__ = ["PageCutter", "Patches", "drawn_page", "drawn_pages", "renderer_for"]
