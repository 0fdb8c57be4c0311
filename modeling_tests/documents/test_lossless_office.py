# SPDX-License-Identifier: Apache-2.0
"""What pandoc alone would lose of office files: tables in tables, notes, headers, hidden text, books' tables."""

from __future__ import annotations

import subprocess
import zipfile
from io import BytesIO

import pytest

from transformers_hybridctx.documents.fictionbook import fictionbook_text
from transformers_hybridctx.documents.files import read_document_file

NESTED = (
    "<table border=1><tr><td>A</td><td></td><td><table border=1><tr><td>x</td><td></td></tr><tr><td>y</td><td>"
    "<table border=1><tr><td>deep</td><td>9</td></tr><tr><td></td><td>8</td></tr></table></td></tr></table></td></tr>"
    "<tr><td>B</td><td>b</td><td></td></tr></table>"
)
NESTED_AS_TEXT = (
    "| A |  | [table 1] |\n| B | b |  |\n[table 1]\n| x |  |\n| y | [table 2] |\n[table 2]\n| deep | 9 |\n|  | 8 |"
)
pytest.importorskip("pypandoc")


def by_pandoc(kind: str, markup: str) -> bytes:
    program = pytest.importorskip("pypandoc").get_pandoc_path()
    command = [program, "-f", "html", "-t", kind, "-s", "-M", "title=T", "-o", "-"]
    return subprocess.run(command, input=markup.encode(), capture_output=True, check=True).stdout


@pytest.mark.parametrize("kind", ["docx", "odt", "epub", "rtf", "fb2"])
def test_tables_three_deep_keep_their_columns_and_empty_cells(kind: str) -> None:
    assert NESTED_AS_TEXT in str(read_document_file(by_pandoc(kind, NESTED), name=f"a.{kind}"))


ODF = "urn:oasis:names:tc:opendocument:xmlns:"
SPACES = " ".join(
    f'xmlns:{short}="{ODF}{long}:1.0"'
    for short, long in {
        "office": "office",
        "text": "text",
        "table": "table",
        "style": "style",
        "draw": "drawing",
    }.items()
)


def odt(body: str, styles: str = "", pages: str = "") -> bytes:
    """An OpenDocument text of a body, its automatic styles, and its master page's content."""
    parts = {
        "mimetype": "application/vnd.oasis.opendocument.text",
        "content.xml": f"<office:document-content {SPACES}><office:automatic-styles>{styles}</office:automatic-styles>"
        f"<office:body><office:text>{body}</office:text></office:body></office:document-content>",
        "styles.xml": f"<office:document-styles {SPACES}><office:master-styles><style:master-page>{pages}"
        "</style:master-page></office:master-styles></office:document-styles>",
    }
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        for name, content in parts.items():
            written.writestr(name, content)
    return buffer.getvalue()


def cell(content: str, attributes: str = "") -> str:
    return f"<table:table-cell {attributes}>{content}</table:table-cell>"


def test_cells_of_opendocument_hold_headings_lists_and_what_they_span() -> None:
    item = "<text:list><text:list-item><text:p>one</text:p></text:list-item></text:list>"
    rows = [
        cell("<text:p>H</text:p>", 'table:number-columns-spanned="2"')
        + "<table:covered-table-cell/>"
        + cell("<text:p>K</text:p>"),
        cell("<text:p>r</text:p>", 'table:number-rows-spanned="2"')
        + cell('<text:h text:outline-level="2">Head</text:h>')
        + cell(item),
        "<table:covered-table-cell/>" + cell("", 'table:number-columns-repeated="2"'),
    ]
    head, *others = (f"<table:table-row>{row}</table:table-row>" for row in rows)
    table = f"<table:table><table:table-header-rows>{head}</table:table-header-rows>{''.join(others)}</table:table>"
    assert read_document_file(odt(table), name="a.odt") == (
        "| H | H | K |\n| --- | --- | --- |\n| r | ## Head | 1. one |\n| r |  |  |"
    )


def repeated(times: int, of: str = "columns") -> str:
    return f'table:number-{of}-repeated="{times}"'


def table_of(*rows: str) -> str:
    return f"<table:table>{''.join(rows)}</table:table>"


def test_cells_and_rows_of_opendocument_stand_as_often_as_they_say() -> None:
    one, two, end = (cell(f"<text:p>{word}</text:p>") for word in ("x", "y", "end"))
    rows = f"<table:table-row {repeated(100, 'rows')}>{one}{two}</table:table-row><table:table-row>{end}{two}"
    assert (
        read_document_file(odt(table_of(rows + "</table:table-row>")), name="a.odt")
        == "| x | y |\n" * 100 + "| end | y |"
    )
    cells = cell("<text:p>1</text:p>", repeated(100)) + cell("", repeated(3)) + end + cell("", repeated(16_000))
    text = read_document_file(odt(table_of(f"<table:table-row>{cells}</table:table-row>")), name="a.odt")
    assert text == "| 1 " * 100 + "|  " * 3 + "| end |  |"
    inner = table_of(f"<table:table-row>{cell('<text:p>i</text:p>', repeated(2))}</table:table-row>")
    nested = table_of(
        f"<table:table-row>{cell(inner, repeated(2))}</table:table-row><table:table-row>{two}{end}</table:table-row>"
    )
    text = read_document_file(odt(nested), name="a.odt")
    assert text == "| [table 1] | [table 2] |\n| y | end |\n[table 1]\n| i | i |\n[table 2]\n| i | i |"


def test_repetitions_of_opendocument_are_bounded_and_what_is_left_out_is_said() -> None:
    body = cell(f"<text:p>{'x' * 1000}</text:p>", repeated(999_999_999))
    with pytest.warns(
        UserWarning, match=r"a\.odt: 999,999,869 repetitions of rows and cells of its tables are left out"
    ):
        text = read_document_file(odt(table_of(f"<table:table-row>{body}</table:table-row>")), name="a.odt")
    assert str(text).count("x" * 1000) == 130


def test_boxes_comments_and_headers_of_opendocument_are_not_lost() -> None:
    table = f"<table:table><table:table-row>{cell('<text:p>Boxed</text:p>')}</table:table-row></table:table>"
    box = f"<draw:frame><draw:text-box>{table}</draw:text-box></draw:frame>"
    body = f"<text:p>Body<office:annotation><text:p>Why?</text:p></office:annotation>{box}</text:p>"
    pages = "<style:header><text:p>No. 99</text:p></style:header><style:footer><text:page-number>1</text:page-number>"
    pages += "</style:footer><style:footer-first><text:p>End</text:p></style:footer-first>"
    assert read_document_file(odt(body, pages=pages), name="a.odt") == (
        "Body\n[comment by somebody: Why?]\n[text box: Boxed]\n[header: No. 99]\n[footer: End]"
    )


def test_hidden_text_of_opendocument_is_reported_and_not_read() -> None:
    styles = '<style:style style:name="T1"><style:text-properties text:display="none"/></style:style>'
    hidden = '<text:span text:style-name="T1">secret</text:span><text:hidden-text>too</text:hidden-text>'
    body = f"<text:p>seen {hidden} end</text:p>"
    with pytest.warns(UserWarning, match=r"a\.odt holds hidden text, which is not read: 'secret too'"):
        assert read_document_file(odt(body, styles), name="a.odt") == "seen end"


WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def docx(body: str, styles: str = "") -> bytes:
    """A Word file with another body, and styles of its own."""
    written = BytesIO()
    with zipfile.ZipFile(BytesIO(by_pandoc("docx", "<p>x"))) as before, zipfile.ZipFile(written, "w") as after:
        for part in before.namelist():
            content = before.read(part)
            if part == "word/document.xml":
                content = f"<w:document {WORD}><w:body>{body}</w:body></w:document>".encode()
            elif part == "word/styles.xml":
                content = f"<w:styles {WORD}>{styles}</w:styles>".encode()
            after.writestr(part, content)
    return written.getvalue()


def run(text: str, properties: str = "") -> str:
    return f"<w:r><w:rPr>{properties}</w:rPr><w:t>{text}</w:t></w:r>"


def test_hidden_text_of_word_files_is_reported_and_not_read() -> None:
    style = '<w:style w:styleId="{0}" w:type="{1}">{2}</w:style>'
    styles = style.format("Hid", "character", "<w:rPr><w:vanish/></w:rPr>") + style.format(
        "Sub", "character", '<w:basedOn w:val="Hid"/>'
    )
    styles += style.format("Par", "paragraph", "<w:rPr><w:vanish/></w:rPr>")
    body = "<w:p>" + run("a", '<w:rStyle w:val="Hid"/>') + run("1") + run("b", "<w:vanish/>") + "</w:p>"
    body += '<w:p><w:pPr><w:pStyle w:val="Par"/><w:rPr><w:vanish/></w:rPr></w:pPr>' + run("c")
    body += run("2", '<w:vanish w:val="0"/>') + "</w:p><w:p>" + run("d", '<w:rStyle w:val="Sub"/>')
    body += run("3", '<w:vanish w:val="false"/>') + run("4", "<w:webHidden/>") + "</w:p>"
    body += "<w:p><w:pPr><w:rPr><w:vanish/></w:rPr></w:pPr>" + run("5") + "</w:p>"
    with pytest.warns(UserWarning, match=r"a\.docx holds hidden text, which is not read: 'a b c d'; show it in the"):
        assert read_document_file(docx(body, styles), name="a.docx") == "1\n2\n34\n5"


def rtf(body: str) -> bytes:
    return b"{\\rtf1\\ansi\\ansicpg1252 " + body.encode("latin-1") + b"\\par}"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (r"Hi{\footnote \pard Note 4711.}", "Hi^1\n1. Note 4711.↩︎"),
        (r"Hi{\*\footnote\chftn\~\plain\pard {\pard Note 4711.\par}}", "Hi^1\n1. Note 4711.↩︎"),
        (
            r"{\header \pard\plain No. \b 99\par}{\footerf \pard\par}{\headerr \pard\plain No. \b 99\par}Hi",
            "Hi\n[header: No. 99]",
        ),
        (r"Hi{\*\atnauthor Bo}{\*\annotation\pard Why?}", "Hi\n[comment: Why?]"),
        (r"a \u8364?5 \u8364 ?6 \u8364\'807", "a €5 €6 €7"),
        (
            r"\trowd\cellx1\cellx2\pard\intbl A\cell\cell\row\trowd\pard\intbl \'e4\cell \bullet\cell\row\pard End",
            "| A |  |\n| ä | • |\nEnd",
        ),
        (r"\trowd\cellx1\cellx2 A\cell B\cell\row \pard End", "| A | B |\nEnd"),
        (r"\pard\intbl A\cell B\cell\pard\intbl\trowd\cellx1\cellx2\row\pard End", "| A | B |\nEnd"),
        (r"\pard\intbl torn\pard End", "torn\nEnd"),
        (
            r"\trowd\pard\intbl C\cell\pard\intbl\itap2 1\nestcell\nestcell{\*\nesttableprops\trowd\nestrow}"
            r"{\nonesttables\par}\pard\intbl\itap2\nestcell 4\nestcell{\*\nesttableprops\trowd\nestrow}"
            r"\pard\intbl\itap1 tail\cell\row\trowd\pard\intbl\cell D\cell\row\pard End",
            "| C | [table 1] tail |\n|  | D |\n[table 1]\n| 1 |  |\n|  | 4 |\nEnd",
        ),
        (r"\trowd\pard\intbl A\par\pard\intbl B\cell\pard\intbl\itap1 C\cell\row\pard End", "| A B | C |\nEnd"),
        (r"x{\footnote\trowd\cellx1\pard\intbl F\cell\row}", "x^1\n1. F↩︎"),
        (r"{\header\trowd\pard\intbl H1\cell\pard\plain H2\cell\row}x", "x\n[header: H1 H2]"),
        (r"{\pict\bin3 }{\}Hi", "Hi"),
        (
            r"{\field{\*\fldinst PAGE}{\fldrslt 7}\htmlrtf0 } {\field{\fldinst HYPERLINK x}{\fldrslt\ul see}} "
            r"{\field\fldedit{\*\fldinst{REF {\field{\*\fldinst A}{\fldrslt 1}\b }}}{\fldrslt{\b B}}}",
            "7 [see](x) B",
        ),
    ],
)
def test_rich_text_loses_no_notes_headers_fields_characters_and_cells(body: str, text: str) -> None:
    assert read_document_file(rtf(body), name="a.rtf") == text


def hexed(text: str, encoding: str) -> str:
    return "".join(f"\\'{byte:02x}" for byte in text.encode(encoding))


FONTS = r"{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Arial Cyr;}{\f2\fcharset128 Mincho;}{\f3\fcharset2 Symbol;}}"


@pytest.mark.parametrize(
    ("head", "body", "text"),
    [
        (r"\ansi\ansicpg1251", hexed("Сумма", "cp1251") + r" 5", "Сумма 5"),
        (r"\ansi\ansicpg1251", "Сумма".encode("cp1251").decode("latin-1"), "Сумма"),
        (r"\ansi\ansicpg1251" + FONTS, hexed("Сумма", "cp1251") + r" caf\'e9", "Сумма cafй"),
        (r"\ansi\ansicpg1251" + FONTS, r"caf\'e9 \f1 " + hexed("Сумма", "cp1251"), "café Сумма"),
        (r"\ansi\ansicpg1252" + FONTS, r"\'e9{\f1 \'e9}\'e9\f1\'e9\plain\'e9", "éйéйé"),
        (r"\ansi\ansicpg1252" + FONTS, r"\f2 " + hexed("日表", "cp932") + r"\'83A\'95\\.", "日表ア表."),
        (r"\ansi\ansicpg936", r"\uc2 \u20013" + hexed("中", "gbk") + r"\u25991" + hexed("文", "gbk") + "x", "中文x"),
        (r"\mac", r"\'8e\'db", "é€"),
        (r"\pc", r"\'82", "é"),
        (r"\ansi" + FONTS, r"a {\f3\'b3} b {\f3 \u-3917\'b3}", "a ≥ b ≥"),
        (r"\ansi", r"\uc1\u-10187?\u-9000? {\uc3\u8364EUR}5 \u8364?6 \uc0\u1055\u1088 x", "𝓘 €5 €6 Прx"),
        (r"\ansi", r"\u8364 \par next", "€\nnext"),
        (r"\ansi", "é日".encode().decode("latin-1"), "é日"),
        (r"\ansi\ansicpg1251" + FONTS, r"{\header\f1 \'c0}x{\footnote\f1 \'c1}", "x^1\n[header: А]\n1. Б↩︎"),
    ],
)
def test_bytes_of_rich_text_are_characters_of_its_code_pages(head: str, body: str, text: str) -> None:
    data = "{\\rtf1" + head + "{\\*\\generator x;}\\pard " + body + "\\par}"
    assert read_document_file(data.encode("latin-1"), name="a.rtf") == text


def row(definition: str, *cells: str) -> str:
    return rf"\trowd{definition}\pard\intbl " + "".join(rf"{one}\cell " for one in cells) + rf"\trowd{definition}\row"


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (
            row(r"\cellx2000\cellx3000", "Both", "C") + row(r"\cellx1000\cellx1990\cellx3000", "1", "2", "3"),
            "| Both | Both | C |\n| 1 | 2 | 3 |",
        ),
        (
            row(r"\clmgf\cellx1000\clmrg\cellx2000\cellx3000", "Both", "", "C")
            + row(r"\clvmgf\cellx1000\cellx2000\cellx3000", "r", "1", "2")
            + row(r"\clvmrg\cellx1000\cellx3000", "", "wide")
            + row(r"\clvmrg\cellx1000\cellx2000\cellx3000", "not empty", "3", ""),
            "| Both | Both | C |\n| r | 1 | 2 |\n| r | wide | wide |\n| not empty | 3 |  |",
        ),
        (
            row(r"\cellx1000\cellx2000", "1", "2", "3") + row(r"\cellx9\cellx5", "4", "5"),
            "| 1 | 2 | 3 |\n| 4 | 5 |  |",
        ),
        (
            r"\trowd\cellx2000\cellx4000\pard\intbl A\cell\pard\intbl\itap2 x\nestcell{\nonesttables\par}y\nestcell"
            r"{\*\nesttableprops\trowd\cellx2500\cellx3000\nestrow}{\nonesttables\par}\pard\intbl\itap2 z\nestcell"
            r"{\*\nesttableprops\trowd\cellx3000\nestrow}{\nonesttables\par}\pard\intbl\itap1\cell"
            r"\trowd\cellx2000\cellx4000\row" + row(r"\cellx4000", "all"),
            "| A | [table 1] |\n| all | all |\n[table 1]\n| x | y |\n| z | z |",
        ),
    ],
)
def test_merged_cells_of_rich_text_stand_in_all_columns_and_rows_that_they_cover(rows: str, text: str) -> None:
    assert read_document_file(rtf(rf"{rows}\pard End"), name="a.rtf") == f"{text}\nEnd"


def test_hidden_text_of_rich_text_is_reported() -> None:
    with pytest.warns(UserWarning, match=r"a\.rtf holds hidden text, which is not read: 'h\xe9 two'"):
        assert read_document_file(rtf(r"1{\v h\'e9}\v  two\v0 2"), name="a.rtf") == "12"


BOOK = """<?xml version="1.0" encoding="windows-1251"?>
<FictionBook xmlns="http://www.gribuser.ru/xml/fictionbook/2.0" xmlns:l="http://www.w3.org/1999/xlink"><description>
<title-info><author><first-name>Лев</first-name> <last-name>Толстой</last-name></author><book-title>Война</book-title>
</title-info></description><body><section><title><p>Глава</p></title><p>Слово<a l:href="#n">[1]</a> <style>x</style>
10<sup>6</sup></p><empty-line/><poem><v>Строка</v></poem><table><tr><th colspan="2">Оба</th></tr><tr><td/><td>1</td></tr>
</table></section></body><body name="notes"><section id="n"><title><p>1</p></title><p>Сноска</p></section></body>
<binary>AAAA</binary></FictionBook>"""


def test_books_keep_tables_notes_and_their_encoding() -> None:
    assert fictionbook_text(BOOK.encode("cp1251"), "a.fb2") == (
        "Лев Толстой\n# Война\n## Глава\nСлово[1] x 10^6\nСтрока\n| Оба | Оба |\n| --- | --- |\n|  | 1 |\n## 1\nСноска"
    )


@pytest.mark.parametrize("data", [b"<FictionBook>" + b"<body>" * 100_000, b"<html></html>", b"<FictionBook"])
def test_what_is_no_book_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"a\.fb2 cannot be read as \.fb2: it is damaged, or of another kind"):
        fictionbook_text(data, "a.fb2")
