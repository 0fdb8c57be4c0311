# SPDX-License-Identifier: Apache-2.0
"""Small PDF files, written by hand."""

from __future__ import annotations

from collections.abc import Sequence

RED_SQUARE = b"1 0 0 rg 50 50 100 100 re f"


def pdf_file(pages: Sequence[str | bytes], encrypted: bool = False, size: tuple[int, int] = (300, 200)) -> bytes:
    """A PDF with a page for each text (its lines, in Helvetica) or content stream."""
    kids = [4 + 2 * number for number in range(len(pages))]
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{' '.join(f'{kid} 0 R' for kid in kids)}] >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for kid, page in zip(kids, pages, strict=True):
        content = page.decode() if isinstance(page, bytes) else _show(page)
        resources = f"/Resources << /Font << /F1 3 0 R >> >> /Contents {kid + 1} 0 R"
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] {resources} >>",
            f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        ]
    trailer = f"/Size {len(objects) + 1} /Root 1 0 R"
    if encrypted:  # by a password that is not the empty one: its check value is made up
        check = f"/O <{'11' * 32}> /U <{'22' * 32}>"
        trailer += f" /ID [<{'00' * 16}> <{'00' * 16}>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 {check} >>"
    data, offsets = "%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    xref = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    return f"{data}{xref}trailer\n<< {trailer} >>\nstartxref\n{len(data)}\n%%EOF\n".encode()


def _show(text: str) -> str:
    lines = " ".join(f"({line}) Tj T*" for line in text.split("\n")) if text else ""
    return f"BT /F1 12 Tf 14 TL 20 170 Td {lines} ET"
