# SPDX-License-Identifier: Apache-2.0
"""Documents as tensors: texts as bytes, pages that are shown as they are as pictures with their characters' boxes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..documents.joined_document import DocumentParts, JoinedDocument
from ..documents.page_numbers import PagedText as TextOfPages
from ..documents.page_numbers import SourcePage
from ..documents.pictures import GivenPicture
from ..documents.scans import ScannedPages
from ..documents.source_document import ShownPage, SourceDocument
from ..planning.paged_document import PagedDocument

_PREFIX = "document."
Tensors = dict[str, torch.Tensor]


def tensors_of(document: PagedDocument | DocumentParts | str) -> Tensors:
    """A document's tensors, named `document.*`: what has to be known to lay it out again."""
    if isinstance(document, DocumentParts):
        parts: list[Any] = list(document.parts)
    elif isinstance(document, JoinedDocument):
        parts = [
            item
            for part in document.parts
            for item in (part.pages if isinstance(part, SourceDocument) else [part.text])
        ]
    elif isinstance(document, SourceDocument):
        parts = list(document.pages)
    elif isinstance(document, ScannedPages):
        parts = [ShownPage.without_text(source) for source in document.sources]
    else:
        parts = [document if isinstance(document, str) else document.text]
    kind = "scan" if isinstance(document, ScannedPages) else "parts"
    header = {"kind": kind, "layout_note": getattr(document, "layout_note", "")}
    tensors = {"header": _bytes_of(json.dumps(header))}
    for number, part in enumerate(parts):
        own = _shown_tensors(part) if isinstance(part, ShownPage) else _text_tensors(part)
        tensors |= {f"{number}.{name}": tensor for name, tensor in own.items()}
    return {_PREFIX + name: tensor for name, tensor in tensors.items()}


def document_of(tensors: Tensors) -> ScannedPages | DocumentParts | str:
    """The document of `tensors_of`, not yet laid out."""
    own = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(_PREFIX)}
    header = json.loads(_text_of(own.pop("header")))
    count = 1 + max(int(name.partition(".")[0]) for name in own)
    parts = [
        _part_of({name.partition(".")[2]: tensor for name, tensor in own.items() if name.startswith(f"{number}.")})
        for number in range(count)
    ]
    if header["kind"] == "scan":
        return ScannedPages([part.source for part in parts if isinstance(part, ShownPage)])
    if len(parts) == 1 and isinstance(parts[0], str) and not header["layout_note"]:
        return parts[0]
    return DocumentParts(tuple(parts), header["layout_note"])


def _shown_tensors(page: ShownPage) -> Tensors:
    height, width = ScannedPages([page.source]).page_size(0)  # no larger than any page is drawn
    return {
        "picture": torch.from_numpy(np.array(page.source.draw(height, width))),
        "size": torch.tensor(page.source.size),
        "text": _bytes_of(page.text),
        "boxes": torch.from_numpy(page.boxes.astype(np.int32)),
        "strips": torch.from_numpy(page.strips.copy()),
        "number": _bytes_of(json.dumps(page.number)),
        "is_known": torch.tensor(page.is_known),
    }


def _text_tensors(text: str) -> Tensors:
    if not isinstance(text, TextOfPages):
        return {"text": _bytes_of(text)}
    pages = {"lengths": [len(one) for one in text.texts], "pages": text.pages}
    return {"text": _bytes_of(text), "pages": _bytes_of(json.dumps(pages))}


def _part_of(tensors: Tensors) -> str | ShownPage:
    text = _text_of(tensors["text"])
    if "picture" in tensors:
        size: tuple[int, int] = tuple(tensors["size"].tolist())
        source = _KeptPage(size, tensors["picture"].numpy())
        boxes = tensors["boxes"].numpy().astype(np.uint16)
        number, is_known = _page_of(_json_of(tensors["number"])), bool(tensors.get("is_known", True))
        return ShownPage(source, text, boxes, tensors["strips"].numpy(), number, is_known)
    if "pages" not in tensors:
        return text
    known = _json_of(tensors["pages"])
    ends = np.cumsum([length + 1 for length in known["lengths"]]).tolist()
    texts = [text[end - length - 1 : end - 1] for length, end in zip(known["lengths"], ends, strict=True)]
    return TextOfPages(texts, [_page_of(page) for page in known["pages"]])


class _KeptPage:
    """A page that was drawn: a `PageSource`."""

    def __init__(self, size: tuple[int, int], pixels: np.ndarray) -> None:
        self.size = size
        (self._picture,) = GivenPicture.frames_of(Image.fromarray(pixels), "a page of a reading")

    def draw(self, height: int, width: int) -> Image.Image:
        return self._picture.draw(height, width)


def _page_of(values: list[Any] | None) -> SourcePage | None:
    return None if values is None else SourcePage(*values)


def _json_of(tensor: torch.Tensor) -> Any:
    return json.loads(_text_of(tensor))


def _bytes_of(text: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8).copy())


def _text_of(tensor: torch.Tensor) -> str:
    return tensor.numpy().tobytes().decode("utf-8", "surrogatepass")


__all__ = ["document_of", "tensors_of"]
