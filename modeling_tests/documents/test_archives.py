# SPDX-License-Identifier: Apache-2.0
"""Archives whose parts are replaced and renamed, and what of a Word file is left out before it is read."""

from __future__ import annotations

import zipfile
from io import BytesIO

import pytest
from office_samples import word_file

from transformers_hybridctx.documents import office
from transformers_hybridctx.documents.archives import Package
from transformers_hybridctx.documents.files import read_document_file


def archive(parts: dict[str, bytes]) -> bytes:
    written = BytesIO()
    with zipfile.ZipFile(written, "w") as opened:
        for name, content in parts.items():
            opened.writestr(name, content)
    return written.getvalue()


def parts_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(data)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_each_change_of_a_package_is_seen_by_the_next_and_packed() -> None:
    package = Package(archive({"a.xml": b"1", "b.xml": b"2", "c.xml": b"3"}))
    package.replace({"a.xml": b"one"})
    package.rename({"a.xml": "b.xml", "b.xml": "d.xml"})
    package.replace({"d.xml": package.read("d.xml") + package.read("b.xml")})
    expected = {"b.xml": b"one", "d.xml": b"2one", "c.xml": b"3"}
    assert {name: package.read(name) for name in package.namelist()} == expected
    assert [package.getinfo(name).file_size for name in package.namelist()] == [3, 4, 1]
    assert parts_of(package.packed()) == expected


def test_what_is_renamed_to_takes_the_place_of_what_was_there() -> None:
    package = Package(archive({"a.xml": b"1", "b.xml": b"2"}))
    package.rename({"a.xml": "b.xml"})
    assert parts_of(package.packed()) == {"b.xml": b"1"}


def test_a_package_without_changes_is_the_same_to_the_byte_and_pictures_are_not_packed() -> None:
    data = archive({"a.xml": b"1", "p.png": b"picture"})
    package = Package(data)
    assert package.packed() is data
    package.replace({"a.xml": b"2"})
    assert parts_of(package.packed()) == {"a.xml": b"2", "p.png": b""}


def test_a_damaged_picture_keeps_nothing_from_being_taken_out() -> None:
    pytest.importorskip("pypandoc")
    hidden = "<w:r><w:rPr><w:vanish/></w:rPr><w:t>secret</w:t></w:r>"
    data = word_file(
        f"<w:p><w:r><w:t>seen</w:t></w:r>{hidden}</w:p>", {"word/media/image1.png": b"12345678" * 20}
    ).replace(b"12345678", b"87654321")  # so that its checksum differs
    with pytest.warns(UserWarning, match="hidden text, which is not read: 'secret'"):
        assert read_document_file(data, name="a.docx") == "seen"


def test_pandoc_is_not_given_what_says_looks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pypandoc")
    look = '<w:rPr><w:rFonts w:ascii="Arial"/><w:b/><w:sz w:val="20"/><w:color w:val="FF0000"/></w:rPr>'
    symbol = '<w:r><w:rPr><w:rFonts w:ascii="Symbol"/></w:rPr><w:t>a</w:t></w:r>'
    borders = '<w:tcBorders><w:top w:val="single" w:sz="4"/><w:left w:val="single"/></w:tcBorders>'
    spans = f'<w:tcPr><w:tcW w:w="9"/><w:gridSpan w:val="2"/>{borders}</w:tcPr>'
    body = (
        f'<w:p w:rsidR="00A1"><w:pPr><w:spacing w:after="0"/></w:pPr><w:r w:rsidR="00B2">{look}'
        f"<w:t>7 mm</w:t></w:r>{symbol}</w:p><w:tbl><w:tblGrid><w:gridCol/><w:gridCol/></w:tblGrid>"
        f"<w:tr><w:tc>{spans}<w:p><w:r>{look}<w:t>x</w:t></w:r></w:p></w:tc></w:tr>"
        f"<w:tr>{'<w:tc><w:p><w:r><w:t>4</w:t></w:r></w:p></w:tc>' * 2}</w:tr></w:tbl>"
    )
    given: list[bytes] = []
    run = office.subprocess.run
    monkeypatch.setattr(
        office.subprocess, "run", lambda command, **said: given.append(said["input"]) or run(command, **said)
    )
    assert read_document_file(word_file(body), name="a.docx") == "7 mmα\n| x | x |\n| 4 | 4 |"
    document = parts_of(given[0])["word/document.xml"].decode()
    assert "gridSpan" in document and 'w:ascii="Symbol"' in document and "<w:b/>" in document
    assert not any(word in document for word in ("rsid", "Arial", "w:sz", "color", "tcBorders", "tcW", "spacing"))
