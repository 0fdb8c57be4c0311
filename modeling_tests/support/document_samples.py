# SPDX-License-Identifier: Apache-2.0
"""Small PDF files, written by hand."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

RED_SQUARE = b"1 0 0 rg 50 50 100 100 re f"
HELVETICA = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"


@dataclass(frozen=True)
class Annotation:
    """A form field (`kind` is "Tx", "Ch" or "Btn") or an annotation ("FreeText", "Text") at a box of points.

    `more`: other keys of a field.
    """

    kind: str
    value: str
    box: tuple[int, int, int, int]
    name: str = ""
    flags: int = 4
    more: str = ""

    def body(self) -> str:
        shared = f"/Type /Annot /Rect [{' '.join(map(str, self.box))}] /F {self.flags} /DA (/F1 12 Tf 0 g)"
        if self.kind in ("Tx", "Ch"):
            value = self.value if self.value.startswith("[") else f"({self.value})"
            return f"<< {shared} /Subtype /Widget /FT /{self.kind} /T ({self.name}) /V {value} {self.more} >>"
        if self.kind == "Btn":
            return f"<< {shared} /Subtype /Widget /FT /Btn /T ({self.name}) /V /{self.value} /AS /{self.value} >>"
        return f"<< {shared} /Subtype /{self.kind} /Contents ({self.value}) >>"


@dataclass(frozen=True)
class SamplePage:
    """A page: its content stream, a picture below it that covers it, more keys of its dictionary, its annotations."""

    content: bytes
    picture: Image.Image | None = None
    extra: str = ""
    annotations: Sequence[Annotation] = ()
    picture_box: tuple[int, int, int, int] | None = None


def pdf_file(
    pages: Sequence[str | bytes | SamplePage],
    encrypted: bool = False,
    size: tuple[int, int] = (300, 200),
    font: str = HELVETICA,
    catalog: str = "",
) -> bytes:
    """A PDF with a page for each text (its lines), content stream or sample page."""
    objects: list[bytes] = [b""] * 3
    kids, fields = [], []
    for page in pages:
        sample = page if isinstance(page, SamplePage) else SamplePage(page if isinstance(page, bytes) else lines(page))
        content, resources = sample.content, "/Font << /F1 3 0 R >>"
        if sample.picture is not None:
            grey = sample.picture.convert("L")
            kind = f"/Type /XObject /Subtype /Image /Width {grey.width} /Height {grey.height} /BitsPerComponent 8"
            objects.append(
                _stream(zlib.compress(grey.tobytes()), f"{kind} /ColorSpace /DeviceGray /Filter /FlateDecode")
            )
            resources += f" /XObject << /Im0 {len(objects)} 0 R >>"
            left, bottom, right, top = sample.picture_box or (0, 0, *size)
            content = f"q {right - left} 0 0 {top - bottom} {left} {bottom} cm /Im0 Do Q\n".encode() + content
        objects.append(_stream(content))
        keys = f"/MediaBox [0 0 {size[0]} {size[1]}] /Resources << {resources} >> /Contents {len(objects)} 0 R"
        objects += [annotation.body().encode() for annotation in sample.annotations]
        numbers = range(len(objects) - len(sample.annotations) + 1, len(objects) + 1)
        fields += [number for number, one in zip(numbers, sample.annotations, strict=True) if one.name]
        annotations = f"/Annots [{_references(numbers)}]" if sample.annotations else ""
        objects.append(f"<< /Type /Page /Parent 2 0 R {keys} {annotations} {sample.extra} >>".encode())
        kids.append(len(objects))
    form = f"/AcroForm << /Fields [{_references(fields)}] /DR << /Font << /F1 3 0 R >> >> >>" if fields else ""
    objects[0] = f"<< /Type /Catalog /Pages 2 0 R {form} {catalog} >>".encode()
    objects[1] = f"<< /Type /Pages /Count {len(kids)} /Kids [{_references(kids)}] >>".encode()
    objects[2] = font.encode()
    trailer = f"/Size {len(objects) + 1} /Root 1 0 R"
    if encrypted:  # by a password that is not the empty one: its check value is made up
        check = f"/O <{'11' * 32}> /U <{'22' * 32}>"
        trailer += f" /ID [<{'00' * 16}> <{'00' * 16}>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 {check} >>"
    data, offsets = bytearray(b"%PDF-1.7\n"), []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return bytes(data) + f"trailer\n<< {trailer} >>\nstartxref\n{start}\n%%EOF\n".encode()


def lines(text: str, x: int = 20, y: int = 170, size: float = 12, before: str = "") -> bytes:
    """A content stream that shows the lines of a text; `before` goes before the first."""
    shown = " ".join(f"({line}) Tj T*" for line in text.split("\n")) if text else ""
    return f"BT /F1 {size} Tf {before} 14 TL {x} {y} Td {shown} ET\n".encode("latin-1")


def scan(text: str, size: tuple[int, int] = (300, 200)) -> Image.Image:
    """A picture of a text."""
    picture = Image.new("L", size, 255)
    ImageDraw.Draw(picture).text((20, 20), text, fill=0)
    return picture


def _stream(data: bytes, keys: str = "") -> bytes:
    return b"<< /Length %d %b >>\nstream\n%b\nendstream" % (len(data), keys.encode(), data)


def _references(numbers: Sequence[int]) -> str:
    return " ".join(f"{number} 0 R" for number in numbers)
