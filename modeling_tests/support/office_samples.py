# SPDX-License-Identifier: Apache-2.0
"""Small office files, written by hand."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"


def workbook(sheets: Mapping[str, Sequence[Sequence[str]] | str], more: str = "", columns: str = "") -> bytes:
    """A small .xlsx file; `columns` stand before the cells of each sheet, and `more` behind them."""
    numbers = range(1, len(sheets) + 1)
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    overrides = "".join(
        f'<Override PartName="/xl/worksheets/s{n}.xml" ContentType="{kind}.worksheet+xml"/>' for n in numbers
    )
    related = "".join(
        f'<Relationship Id="r{n}" Type="{OFFICE}/worksheet" Target="worksheets/s{n}.xml"/>' for n in numbers
    )
    named = "".join(
        f'<sheet name="{name}" sheetId="{n}" r:id="r{n}"/>' for n, name in zip(numbers, sheets, strict=True)
    )
    files = {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types"><Default Extension="rels" ContentType='
        '"application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" '
        f'ContentType="{kind}.sheet.main+xml"/>{overrides}</Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="r1" '
        f'Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>{named}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships">{related}</Relationships>',
    }
    for n, rows in zip(numbers, sheets.values(), strict=True):
        files[f"xl/worksheets/s{n}.xml"] = (
            f'<worksheet xmlns="{MAIN}">{columns}<sheetData>{cells(rows)}</sheetData>{more}</worksheet>'
        )
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, '<?xml version="1.0" encoding="UTF-8"?>' + content)
    return buffer.getvalue()


def with_parts(data: bytes, more: dict[str, str], **changes: tuple[str, str]) -> bytes:
    """An office file with more parts, and with a text replaced in the one that `document` or `slide` names."""
    named = {"document": "word/document.xml", "slide": "ppt/slides/slide1.xml"}
    written = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as before, zipfile.ZipFile(written, "w") as after:
        for part in before.namelist():
            content = before.read(part)
            for change, (old, new) in changes.items():
                if part == named[change]:
                    assert old.encode() in content
                    content = content.replace(old.encode(), new.encode(), 1)
            if part not in more:
                after.writestr(part, content)
        for part, text in more.items():
            after.writestr(part, text)
    return written.getvalue()


def cells(rows: Sequence[Sequence[str]] | str) -> str:
    if isinstance(rows, str):
        return rows
    written = ""
    for y, row in enumerate(rows, start=1):
        filled = enumerate(row, start=ord("A"))
        inner = "".join(f'<c r="{chr(x)}{y}" t="inlineStr"><is><t>{cell}</t></is></c>' for x, cell in filled)
        written += f'<row r="{y}">{inner}</row>'
    return written


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def word_file(body: str, more: Mapping[str, str | bytes] | None = None, chunk: str = "") -> bytes:
    """A small .docx file of a body, with more parts; `chunk` is one that the body may name as r:id="r1"."""
    relation = f'<Relationship Id="r1" Type="{OFFICE}/aFChunk" Target="{chunk}"/>' if chunk else ""
    compatible = "http://schemas.openxmlformats.org/markup-compatibility/2006"
    files: dict[str, str | bytes] = {
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="r1" '
        f'Type="{OFFICE}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/_rels/document.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships">{relation}</Relationships>',
        "word/document.xml": f'<w:document xmlns:w="{WORD}" xmlns:r="{OFFICE}" xmlns:mc="{compatible}" '
        f'xmlns:v="urn:schemas-microsoft-com:vml"><w:body>{body}</w:body></w:document>',
        **(more or {}),
    }
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
