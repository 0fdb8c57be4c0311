# SPDX-License-Identifier: Apache-2.0
"""Office files, books, notebooks and e-mail as text."""

from __future__ import annotations

import base64
import quopri
import subprocess
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from io import BytesIO
from pathlib import Path

import pytest
from office_samples import cells, with_parts, workbook

from transformers_hybridctx.documents import containers, office
from transformers_hybridctx.documents.files import read_document_file

CONTRACT = """# Contract

The sum is **485,000** EUR. See [list](https://x.org/l).

| Item  | 2023 | 2024 |
|-------|------|------|
| Sales |      | 9    |
| Cost  | 3    | 4    |

- one
- two
"""
AS_TEXT = """# Contract
The sum is 485,000 EUR. See [list](https://x.org/l).
| Item | 2023 | 2024 |
| --- | --- | --- |
| Sales |  | 9 |
| Cost | 3 | 4 |
- one
- two"""


@pytest.fixture(scope="module")
def pandoc() -> str:
    return str(pytest.importorskip("pypandoc").get_pandoc_path())


@pytest.mark.parametrize("suffix", ["docx", "odt", "epub", "ipynb"])
def test_headings_tables_links_and_lists_are_kept(tmp_path: Path, pandoc: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    subprocess.run([pandoc, "-f", "markdown", "-o", str(path)], input=CONTRACT.encode(), check=True)
    assert read_document_file(path) == AS_TEXT


@pytest.mark.parametrize("suffix", ["pptx", "rtf"])
def test_slides_and_rich_text_keep_words_and_rows(tmp_path: Path, pandoc: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    subprocess.run([pandoc, "-s", "-f", "markdown", "-o", str(path)], input=CONTRACT.encode(), check=True)
    text = read_document_file(path)
    for row in ("# Contract", "The sum is 485,000 EUR.", "| Sales |  | 9 |", "one\n", "two"):
        assert row in str(text)


def by_pandoc(pandoc: str, kind: str, text: str) -> bytes:
    return subprocess.run(
        [pandoc, "-f", "markdown", "-t", kind, "-o", "-"], input=text.encode(), capture_output=True
    ).stdout


WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def test_headers_footers_text_boxes_and_comments_are_not_lost(pandoc: str) -> None:
    box = f"<w:p><w:r><w:pict><w:txbxContent>{paragraph('Boxed 777')}</w:txbxContent></w:pict></w:r></w:p>"
    more = {
        "word/header1.xml": f"<w:hdr {WORD}>{paragraph('Contract no. 99')}{paragraph('Draft')}</w:hdr>",
        "word/header2.xml": f"<w:hdr {WORD}>{paragraph('The body.')}</w:hdr>",
        "word/footer1.xml": f"<w:ftr {WORD}>{paragraph('Page')}</w:ftr>",
        "word/comments.xml": f'<w:c {WORD}><w:comment w:author="B">{paragraph("Too much?")}</w:comment></w:c>',
    }
    data = with_parts(by_pandoc(pandoc, "docx", "The body."), more, document=("<w:sectPr", f"{box}<w:sectPr"))
    assert str(read_document_file(data, name="a.docx")).split("\n") == [
        *("The body.", "[comment by B: Too much?]", "[text box: Boxed 777]", "[footer: Page]"),
        "[header: Contract no. 99 Draft]",
    ]
    with pytest.warns(UserWarning, match=r"a\.docx: its part word/header1\.xml is not looked through: mismatched tag"):
        assert read_document_file(with_parts(data, {"word/header1.xml": "<a><b></a>"}), name="a.docx")


def test_notes_and_groups_of_slides_are_not_lost(pandoc: str) -> None:
    data = by_pandoc(pandoc, "pptx", "# Results\n\nSales up.\n\n::: notes\nSay 999.\n:::\n")
    shape = "<p:sp><p:txBody><a:p><a:r><a:t>Grouped 654</a:t></a:r></a:p></p:txBody></p:sp>"
    data = with_parts(data, {}, slide=("</p:spTree>", f"<p:grpSp>{shape}</p:grpSp></p:spTree>"))
    text = str(read_document_file(data, name="a.pptx"))
    assert text.endswith("[notes of slide 1: Say 999.]\n[group on slide 1: Grouped 654]")


def test_sheets_keep_their_names_and_cells() -> None:
    sheets: dict[str, list[list[str]] | str] = {"Income": [["Item", "2023"], ["Sales", "9"]], "Costs": [["Rent", "4"]]}
    text = str(read_document_file(workbook(sheets), name="a.xlsx"))
    assert text.index("Income") < text.index("| Sales | 9 |") < text.index("Costs") < text.index("| Rent | 4 |")


@pytest.mark.parametrize("kind", ["xlMacrosheet", "xlIntlMacrosheet"])
def test_sheets_beside_one_of_macros_are_read(kind: str) -> None:
    relation = f"http://schemas.microsoft.com/office/2006/relationships/{kind}"
    written = BytesIO()
    with (
        zipfile.ZipFile(BytesIO(workbook({"S": [["sales", "9"]], "M": [["=RUN()"]]}))) as before,
        zipfile.ZipFile(written, "w") as after,
    ):
        for part in before.namelist():
            content = before.read(part).decode()
            if part == "xl/_rels/workbook.xml.rels":
                start, _, end = content.partition('Id="r2" Type="')
                content = f'{start}Id="r2" Type="{relation}"{end.partition(chr(34))[2]}'
            after.writestr(part, content)
    with pytest.warns(UserWarning, match=r"a\.xlsm: the chart, dialog or macro sheets M are left out"):
        assert read_document_file(written.getvalue(), name="a.xlsm") == "# S\n| sales | 9 |"


def test_numbers_have_the_digits_that_a_spreadsheet_shows() -> None:
    row = "".join(
        f'<c r="{letter}1"><v>{value}</v></c>'
        for letter, value in zip("ABCD", ("0.30000000000000004", "1469.1263999999999", "1E-7", "-12.50"), strict=True)
    )
    text = read_document_file(workbook({"S": f'<row r="1">{row}</row>'}), name="a.xlsx")
    assert text == "# S\n| 0.3 | 1469.1264 | 1E-07 | -12.5 |"


@pytest.mark.parametrize("suffix", ["dotx", "docm", "pptm", "ppsx", "potx", "ott", "xltx"])
def test_templates_and_shows_are_files_of_their_kind(pandoc: str, suffix: str) -> None:
    kind = {"d": "docx", "p": "pptx", "o": "odt", "x": "xlsx"}[suffix[0]]
    data = workbook({"S": [["word"]]}) if kind == "xlsx" else by_pandoc(pandoc, kind, "word")
    assert "word" in str(read_document_file(data, name=f"a.{suffix}"))


@pytest.mark.parametrize("data", [b"{\\rtf1\\ansi word\\par}", b"\n<html><p>word", b"<!DOCTYPE HTML><p>word"])
def test_a_doc_that_is_none_is_read_as_what_it_is(pandoc: str, data: bytes) -> None:
    assert read_document_file(data, name="a.doc") == "word"


def test_chapters_that_a_reader_need_not_pass_are_read(pandoc: str) -> None:
    data = by_pandoc(pandoc, "epub", "# One\n\nfirst\n\n# Notes\n\nnote 42\n")
    written = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as before, zipfile.ZipFile(written, "w") as after:
        for part in before.namelist():
            content = before.read(part)
            if part.endswith(".opf"):
                assert b'idref="ch002_xhtml"' in content
                content = content.replace(b'idref="ch002_xhtml"', b"linear='no' idref=\"ch002_xhtml\"")
            after.writestr(part, content)
    assert "note 42" in str(read_document_file(written.getvalue(), name="a.epub"))


def test_merged_cells_stand_in_all_that_they_cover() -> None:
    rows = [["Region", "North", ""], ["", "2023", "2024"], ["Sales", "1", "2"]]
    merged = '<mergeCells count="2"><mergeCell ref="B1:C1"/><mergeCell ref="A1:A2"/></mergeCells>'
    text = read_document_file(workbook({"S": rows}, merged), name="a.xlsx")
    assert text == "# S\n| Region | North | North |\n| Region | 2023 | 2024 |\n| Sales | 1 | 2 |"


def test_empty_rows_and_columns_before_a_table_move_no_merged_cell() -> None:
    rows = '<row r="3"><c r="C3"><v>4</v></c></row><row r="4"><c r="C4"><v>1.5</v></c><c r="D4"><v>7</v></c></row>'
    merged = '<mergeCells count="1"><mergeCell ref="C3:D3"/></mergeCells>'
    assert read_document_file(workbook({"S": rows}, merged), name="a.xlsx") == "# S\n| 4 | 4 |\n| 1.5 | 7 |"


def test_a_mail_box_is_its_messages() -> None:
    one = "From a@b.c Mon Jun 1 10:00:00 2009\nFrom: A\nSubject: Sums\n\nIt is 4711.\n>From now on 5.\n\n"
    two = "From d@e.f Mon Jun 1 10:00:00 2009\nSubject: Two\n\nFrom here on.\n"
    text = read_document_file((one + two).encode(), name="a.mbox")
    assert text == (
        "# Message 1\nFrom: A\nSubject: Sums\n\nIt is 4711.\nFrom now on 5.\n\n# Message 2\nSubject: Two\n\nFrom here on."
    )
    with pytest.raises(ValueError, match=r"a\.mbox is no mail box"):
        read_document_file(b"Subject: x\n\ny", name="a.mbox")


def test_a_cell_far_from_the_others_fills_no_document() -> None:
    rows = (
        '<row r="1"><c r="A1"><v>1</v></c><c r="B1"><v>2</v></c></row><row r="9000"><c r="CZ9000"><v>47</v></c></row>'
    )
    text = read_document_file(workbook({"S": rows}), name="a.xlsx")
    assert "| 1 | 2 |" in text and "| 47 |" in text and len(text) < 1_000


def test_a_sheet_of_thousands_of_millions_of_cells_is_refused() -> None:
    rows = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>2</v></c></row>'
    with pytest.raises(
        ValueError, match=r"a.xlsx cannot be read as a workbook: it takes more than 2,147,483,648 bytes"
    ):
        read_document_file(workbook({"S": rows}), name="a.xlsx")


def test_a_damaged_sheet_is_named_and_the_others_are_read() -> None:
    sheets = {"Good": [["Item", "2023"]], "Bad": cells([["x"]]).replace('r="A1"', 'r="??"')}
    with pytest.warns(UserWarning, match=r"a\.xlsx: the damaged sheets Bad are left out"):
        assert read_document_file(workbook(sheets), name="a.xlsx") == "# Good\n| Item | 2023 |"
    with pytest.raises(ValueError, match=r"a\.xlsx cannot be read as a workbook: it is damaged, or of another kind"):
        read_document_file(workbook({"Bad": sheets["Bad"]}), name="a.xlsx")


def archive(**files: str) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        for name, content in files.items():
            written.writestr(name, content)
    return buffer.getvalue()


BEFORE_2007 = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
PROTECTED = "is protected with a password or by rights management; save it without$"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.docx", BEFORE_2007 + "EncryptedPackage".encode("utf-16-le"), PROTECTED),
        ("a.xlsx", BEFORE_2007 + "EncryptedPackage".encode("utf-16-le"), PROTECTED),
        ("a.odt", archive(**{"META-INF/manifest.xml": "<manifest:encryption-data>"}), PROTECTED),
        ("a.epub", archive(**{"META-INF/rights.xml": "<rights/>"}), PROTECTED),
        ("a.docx", BEFORE_2007, "is an Office file of before 2007 under another name; save it as .docx"),
        (
            "a.xls",
            BEFORE_2007,
            "cannot be read as a workbook: it is damaged, or of another kind; save it again",
        ),
        ("a.xls", b"<html><table><tr><td>1", "is no .xls file: it looks like HTML or XML; name it .html$"),
        ("a.xlsx", b"x", "is no .xlsx file: it is damaged, or of another kind$"),
        ("a.xlsx", archive(a="x"), "cannot be read as a workbook: it is damaged, or of another kind; save it again"),
        (
            "a.xlsb",
            archive(a="x"),
            "cannot be read as a workbook: .* or holds what calamine does not know; save it as .xlsx, or as CSV",
        ),
        ("a.ods", archive(a="x"), "cannot be read as a workbook: it is damaged, or of another kind; save it again"),
        *(
            (
                f"a.{kind}",
                archive(a="x"),
                f"cannot be read as .{kind}: it is damaged, or of another kind; save it again",
            )
            for kind in ("docx", "pptx", "odt", "epub")
        ),
        ("a.fb2", b"<a>", "cannot be read as .fb2: it is damaged, or of another kind; save it again, or as PDF$"),
        ("a.ipynb", b"{}x", "cannot be read as .ipynb: it is damaged, or of another kind; save it again, or as PDF$"),
    ],
)
def test_what_is_wrong_with_an_office_file_is_said_in_a_sentence(name: str, data: bytes, reason: str) -> None:
    pytest.importorskip("pypandoc")
    with pytest.raises(ValueError, match=rf"^{name} {reason}"):
        read_document_file(data, name=name)


def with_a_changed_byte(data: bytes, part: str) -> bytes:
    """An archive of stored parts, one of which has a byte changed in its middle, which its checksum tells."""
    content = b"<x>The sum is 485,000 EUR.</x>" * 9
    written = BytesIO(data)
    with zipfile.ZipFile(written, "a") as changed:
        changed.writestr(part, content)
    return written.getvalue().replace(content, content.replace(b"485", b"486", 1))


@pytest.mark.parametrize("kind", ["docx", "pptx", "xlsx", "xlsm", "ods", "odt", "epub"])
def test_a_part_that_is_not_what_was_written_is_named(kind: str) -> None:
    data = archive(**{"[Content_Types].xml": "<Types/>"})
    reason = r"is damaged: its part 'a/text\.xml' is not what was written \(its checksum differs\); get it again, or"
    with pytest.raises(ValueError, match=rf"^a\.{kind} {reason}"):
        read_document_file(with_a_changed_byte(data, "a/text.xml"), name=f"a.{kind}")


def test_a_damaged_picture_keeps_no_text_from_being_read(pandoc: str) -> None:
    data = with_a_changed_byte(by_pandoc(pandoc, "docx", "The sum is 1."), "word/media/a.png")
    assert read_document_file(data, name="a.docx") == "The sum is 1."


def test_a_part_that_does_not_unpack_is_named() -> None:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("word/document.xml", bytes(range(256)) * 40)
    data = bytearray(buffer.getvalue())
    data[47:60] = b"\xff" * 13
    with pytest.raises(ValueError, match=r"its part 'word/document\.xml' is not what was written \(Error -3 while"):
        read_document_file(bytes(data), name="a.docx")


def test_what_an_archive_unpacks_to_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_UNPACKED_BYTES", 100)
    with pytest.raises(ValueError, match=r"a\.epub unpacks to 101 bytes, more than 100; split it up"):
        read_document_file(archive(a="x" * 101), name="a.epub")


def test_titles_and_authors_of_a_word_file_are_not_lost(pandoc: str) -> None:
    head = "---\ntitle: Lease of 12 May\nsubtitle: Second copy\nauthor: Ada Byron\ndate: 2024\n---\n\n"
    data = subprocess.run(
        [pandoc, "-f", "markdown", "-t", "docx", "-s", "-o", "-"], input=f"{head}Rent.".encode(), capture_output=True
    ).stdout
    assert read_document_file(data, name="a.docx") == "# Lease of 12 May\nSecond copy\nAda Byron\n2024\nRent."


def test_without_pandoc_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise OSError("no pandoc")

    monkeypatch.setattr(pytest.importorskip("pypandoc"), "get_pandoc_path", missing)
    with pytest.raises(ValueError, match=r"a.docx is read by pandoc.*pip install 'transformers-hybridctx\[office\]'"):
        read_document_file(b"PK", name="a.docx")


def test_a_file_that_takes_too_long_is_refused(pandoc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(office, "PANDOC_SECONDS", 0)
    with pytest.raises(ValueError, match="takes pandoc more than 0 seconds; split it up"):
        read_document_file(b"{\\rtf1 x}", name="a.rtf")


def test_an_email_is_its_headers_text_and_names_of_attachments() -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Ada <ada@example.org>", "bob@example.org", "Größe"
    message.set_content("The code is 4821.\n")
    message.add_alternative("<p>The code is <b>4821</b>.", subtype="html")
    message.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename="plan.pdf")
    assert read_document_file(bytes(message), name="a.eml") == (
        "From: Ada <ada@example.org>\nTo: bob@example.org\nSubject: Größe\n\nThe code is 4821.\n[attached: plan.pdf]"
    )


def test_an_email_whose_plain_text_is_blank_is_read_from_its_html() -> None:
    message = EmailMessage()
    message["Subject"] = "x"
    message.set_content("\n")
    message.add_alternative("<p>The code is 4821.", subtype="html")
    assert read_document_file(bytes(message), name="a.eml") == "Subject: x\n\nThe code is 4821."


def test_forwarded_messages_are_read() -> None:
    message, inner = EmailMessage(), EmailMessage()
    message["Subject"], inner["Subject"] = "outer", "inner"
    message.set_content("See below.\n")
    inner.set_content("The code is 4821.\n")
    message.add_attachment(inner)
    assert read_document_file(bytes(message), name="a.eml") == (
        "Subject: outer\n\nSee below.\n[attached: message/rfc822]\n\nSubject: inner\n\nThe code is 4821."
    )


def message(kind: str, *parts: str, border: str = "x") -> str:
    inner = "".join(f"--{border}\n{part}\n" for part in parts)
    return f"Content-Type: multipart/{kind}; boundary={border}\n\n{inner}--{border}--\n"


PLAIN, MARKED = "Content-Type: text/plain\n\n", "Content-Type: text/html\n\n<p>"
PICTURE = "Content-Type: image/png; name=l.png\n\nzz"


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (
            message("mixed", f"{PLAIN}one", PICTURE, f"{PLAIN}two", f"{MARKED}three"),
            "\none\n[attached: l.png]\n\ntwo\n\nthree",
        ),
        (
            message("mixed", message("alternative", f"{PLAIN}a", f"{MARKED}b", border="y"), PICTURE, f"{PLAIN}foot"),
            "\na\n[attached: l.png]\n\nfoot",
        ),
        (message("mixed", f"{PLAIN}one", message("alternative", f"{PLAIN}a", f"{MARKED}b", border="y")), "\none\n\na"),
        (message("alternative", f"{PLAIN}See the page.", f"{MARKED}{'word ' * 20}"), f"\n{'word ' * 20}".rstrip()),
        ("Content-Type: text/calendar\n\nSUMMARY:Meet 42\n", "\nSUMMARY:Meet 42"),
        (f"{PLAIN}as a file", "\nas a file"),
    ],
)
def test_all_texts_of_a_message_are_read(parts: str, text: str) -> None:
    assert (
        read_document_file(f"Subject: s\nMIME-Version: 1.0\n{parts}".encode(), name="a.eml") == f"Subject: s\n{text}"
    )


def test_a_saved_page_is_its_page() -> None:
    page = "Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n<h1>Gr=C3=B6=C3=9Fe"
    data = message("related", page, PICTURE, "Content-Type: text/css\n\np{}", f"{MARKED}frame")
    assert (
        read_document_file(f"Subject: Saved\n{data}".encode(), name="a.mhtml") == "Subject: Saved\n\n# Größe\n\nframe"
    )


def test_parts_of_mail_that_stand_too_deep_are_refused() -> None:
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (one, one) for one in range(2000))
    with pytest.raises(ValueError, match=r"a\.eml cannot be read as an e-mail: its parts stand too deep"):
        read_document_file(b"Subject: x\n" + nested + b"\nx\n", name="a.eml")


@pytest.mark.parametrize(
    "kind", ["application/pkcs7-mime; smime-type=enveloped-data", 'multipart/encrypted; boundary="b"']
)
def test_an_email_that_is_encrypted_is_refused(kind: str) -> None:
    data = f"Subject: x\nContent-Type: {kind}\n\n--b\n\nMIIB\n--b--\n"
    with pytest.raises(ValueError, match=rf"a\.eml is encrypted, .*\({kind.partition(';')[0]}\): save it without"):
        read_document_file(data.encode(), name="a.eml")


def test_an_email_that_is_a_file_itself_names_it() -> None:
    data = b'Subject: Fax\nContent-Type: application/pdf\nContent-Disposition: inline; filename="fax.pdf"\n\n%PDF-\n'
    assert read_document_file(data, name="a.eml") == "Subject: Fax\n[attached: fax.pdf]"


def test_an_email_of_html_alone_is_what_its_reader_sees() -> None:
    headers = "Subject: x\nContent-Type: text/html; charset=cp1252\nContent-Transfer-Encoding: 8bit"
    data = f"{headers}\n\n<p hidden>no</p><p>naïve"
    with pytest.warns(UserWarning, match=r"a\.eml holds hidden text, which is not read: 'no'"):
        assert read_document_file(data.encode("cp1252"), name="a.eml") == "Subject: x\n\nnaïve"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32"])
def test_mails_that_an_editor_saved_anew_are_read(encoding: str) -> None:
    plain = "Content-Type: text/plain; charset=iso-8859-1\n"
    parts = f"--b\n{plain}Content-Transfer-Encoding: 8bit\n\nÜbergabe: 4711 €\n"
    parts += f"--b\n{plain}Content-Transfer-Encoding: quoted-printable\n\nF=FCnf\n--b--\n"
    message = f"Subject: Prüfung\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n{parts}"
    text = "Subject: Prüfung\n\nÜbergabe: 4711 €\n\nFünf"
    assert read_document_file(message.encode(encoding), name="a.eml") == text
    box = f"From x Mon Jan 1 00:00:00 2024\n{message}"
    assert read_document_file(box.encode(encoding), name="a.mbox") == f"# Message 1\n{text}"


@pytest.mark.parametrize("encode", [base64.encodebytes, quopri.encodestring, bytes])
def test_a_message_that_is_attached_in_an_encoding_is_read(encode: Callable[[bytes], bytes]) -> None:
    inner = "Subject: inner\nContent-Type: text/plain; charset=utf-8\n\nThe code = 4711 é".encode()
    kind = {"encodebytes": "base64", "encodestring": "quoted-printable"}.get(encode.__name__, "8bit")
    header = "Subject: outer\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n"
    header += f"Content-Type: message/rfc822\nContent-Transfer-Encoding: {kind}\n\n"
    text = read_document_file(header.encode() + encode(inner) + b"\n--b--\n", name="a.eml")
    assert text == "Subject: outer\n[attached: message/rfc822]\n\nSubject: inner\n\nThe code = 4711 é"


@pytest.mark.parametrize("tag", ["aside", "div"])
def test_notes_of_a_book_are_read_whether_or_not_a_mark_refers_to_them(pandoc: str, tag: str) -> None:
    space = 'xmlns:epub="http://www.idpf.org/2007/ops"'
    mark = f'<p>Rent 5<a epub:type="noteref" {space} href="#n1">1</a></p>'
    notes = f'<{tag} epub:type="footnote" {space} id="n1"><p>per month</p></{tag}>'
    notes += (
        f'<section epub:type="footnotes" {space}><{tag} epub:type="rearnote" id="n2"><p>42 EUR</p></{tag}></section>'
    )
    written = BytesIO()
    with (
        zipfile.ZipFile(BytesIO(by_pandoc(pandoc, "epub", "# One\n\nBODY\n"))) as before,
        zipfile.ZipFile(written, "w") as after,
    ):
        for part in before.namelist():
            after.writestr(part, before.read(part).replace(b"<p>BODY</p>", (mark + notes).encode()))
    text = str(read_document_file(written.getvalue(), name="a.epub"))
    assert "Rent 5^1\n42 EUR\n1. per month" in text
