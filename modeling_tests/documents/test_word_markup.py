# SPDX-License-Identifier: Apache-2.0
"""Markup of Word that pandoc drops with its words, and what stands in other parts of office files."""

from __future__ import annotations

import pytest
from office_samples import word_file

from transformers_hybridctx.documents.files import read_document_file

pytest.importorskip("pypandoc")


def run(text: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


def form_field(data: str, kind: str) -> str:
    begins = f'<w:r><w:fldChar w:fldCharType="begin"><w:ffData>{data}</w:ffData></w:fldChar></w:r>'
    return f'{begins}<w:r><w:instrText> {kind} </w:instrText></w:r><w:r><w:fldChar w:fldCharType="end"/></w:r>'


def alternatives(choice: str, fallback: str) -> str:
    choices = (
        f'<mc:Choice xmlns:q="urn:q" Requires="q">{choice}</mc:Choice><mc:Choice Requires="z">{run("no")}</mc:Choice>'
    )
    return f"<mc:AlternateContent>{choices}<mc:Fallback>{fallback}</mc:Fallback></mc:AlternateContent>"


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        (
            f'{run("Table ")}<w:fldSimple w:instr=" SEQ > 1 "><w:fldData>AA</w:fldData>{run("4")}</w:fldSimple>: sums',
            "Table 4",
        ),
        ('<w:bdo w:val="rtl">' + run("12") + '</w:bdo><w:dir w:val="rtl">' + run("34") + "</w:dir>", "1234"),
        (f'<w:customXml w:element="a"><w:customXmlPr/>{run("inside")}</w:customXml>', "inside"),
        (
            f"<w:r><w:ruby><w:rubyPr/><w:rt>{run('kan')}</w:rt><w:rubyBase>{run('漢')}</w:rubyBase></w:ruby></w:r>{run('字')}",
            "漢(kan)字",
        ),
        ("<w:r><w:t>12</w:t><w:cr/><w:t>13</w:t><w:ptab w:alignment='right'/><w:t>14</w:t></w:r>", "12\n13 14"),
        (alternatives('<w:r><w:t q:a="1">new</w:t></w:r>', run("old")), "new"),
        (
            form_field("<w:checkBox><w:default w:val='0'/><w:checked/></w:checkBox>", "FORMCHECKBOX") + run(" yes"),
            "☒ yes",
        ),
        (form_field("<w:checkBox><w:default w:val='0'/></w:checkBox>", "FORMCHECKBOX") + run(" no"), "☐ no"),
        (
            form_field(
                "<w:ddList><w:result w:val='1'/><w:listEntry w:val='A'/><w:listEntry w:val='B &amp; C'/></w:ddList>",
                "X",
            ),
            "B & C",
        ),
        (
            '<w:ins w:id="1" w:author="a">' + run("added") + "</w:ins><w:r><w:rPr><w:ins/></w:rPr><w:t>!</w:t></w:r>",
            "added!",
        ),
    ],
)
def test_words_in_markup_that_pandoc_drops_are_read(inside: str, text: str) -> None:
    assert read_document_file(word_file(f"<w:p>{inside}</w:p>"), name="a.docx") == text


FIELD = '<w:fldChar w:fldCharType="begin"/><w:instrText> REF a </w:instrText><w:fldChar w:fldCharType="separate"/>'
CHECK_BOX = '<w:fldChar w:fldCharType="begin"><w:ffData><w:checkBox><w:checked/></w:checkBox></w:ffData></w:fldChar>'
BOX = (
    "<w:drawing><w:txbxContent><w:p><w:r><w:t>Box</w:t><w:pict/><w:t>ed</w:t></w:r></w:p></w:txbxContent></w:drawing>"
)


@pytest.mark.parametrize(
    ("mark", "shown", "after"),
    [
        ('<w:footnoteReference w:id="2"/>', "^1", "\n1. Note 7.↩︎"),
        ('<w:endnoteReference w:id="2"/><w:footnoteReference w:id="2"/>', "^1^2", "\n1. End 8.↩︎\n2. Note 7.↩︎"),
        ('<w:commentReference w:id="2"/>', "", ""),
        ('<w:sym w:font="Symbol" w:char="F061"/>', "α", ""),
        ("<w:drawing/>", "", ""),
        (BOX, "", "\n[text box: Boxed]"),
        ("<w:pict/><w:object/>", "", ""),
        (alternatives("<w:drawing/>", "<w:pict/>"), "", ""),
        (FIELD + '<w:t>5</w:t><w:fldChar w:fldCharType="end"/>', "5", ""),
        (CHECK_BOX + '<w:fldChar w:fldCharType="end"/>', "☒", ""),
    ],
)
@pytest.mark.parametrize("properties", ["", "<w:rPr><w:b/></w:rPr>", "<w:rPr/>"])
def test_text_in_one_run_with_what_pandoc_reads_alone_is_read(
    mark: str, shown: str, after: str, properties: str
) -> None:
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    note = '<w:{0}s {1}><w:{0} w:id="2"><w:p><w:r><w:t>{2}</w:t></w:r></w:p></w:{0}></w:{0}s>'
    more = {
        "word/footnotes.xml": note.format("footnote", space, "Note 7."),
        "word/endnotes.xml": note.format("endnote", space, "End 8."),
    }
    inside = f"{properties}<w:t>Seen</w:t><w:tab/><w:t>4711</w:t>{mark}<w:t>m</w:t><w:br/><w:t>high</w:t>"
    data = word_file(f'<w:p><w:r w:rsidR="a > b">{inside}</w:r></w:p>', more)
    assert read_document_file(data, name="a.docx") == f"Seen 4711{shown}m\nhigh{after}"


def test_a_paragraph_to_which_a_text_box_is_tied_is_read() -> None:
    box = f"<w:txbxContent><w:p><w:fldSimple w:instr='PAGE'>{run('Boxed 7')}</w:fldSimple></w:p></w:txbxContent>"
    old = f"<w:pict><v:shape><v:textbox>{box}</v:textbox></v:shape></w:pict>"
    choice = f"<mc:Choice Requires='wps'><w:drawing>{box}</w:drawing></mc:Choice>"
    tied = f"<w:r><mc:AlternateContent>{choice}<mc:Fallback>{old}</mc:Fallback></mc:AlternateContent></w:r>"
    for paragraph in (run("Seen ") + tied + run("4711."), tied + run("Seen 4711."), run("Seen 4711.") + tied):
        body = f"<w:p>{paragraph}</w:p><w:p>{run('Next.')}</w:p>"
        assert read_document_file(word_file(body), name="a.docx") == "Seen 4711.\nBoxed 7\nNext."


def test_a_hidden_mark_of_a_note_hides_its_note() -> None:
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    note = f'<w:footnotes {space}><w:footnote w:id="2"><w:p>{run("Note 7.")}</w:p></w:footnote></w:footnotes>'
    hidden = '<w:r><w:rPr><w:vanish/></w:rPr><w:t>Secret</w:t><w:footnoteReference w:id="2"/></w:r>'
    data = word_file(f"<w:p>{run('Seen.')}{hidden}</w:p>", {"word/footnotes.xml": note})
    with pytest.warns(UserWarning, match=r"hidden text, which is not read: 'Secret \[note\]'"):
        assert read_document_file(data, name="a.docx") == "Seen."


def cell(text: str) -> str:
    return f"<w:tc><w:p>{run(text)}</w:p></w:tc>"


def test_cells_that_a_row_leaves_out_keep_its_columns_and_hidden_rows_are_reported() -> None:
    rows = f"<w:tr>{cell('a')}{cell('b')}{cell('c')}</w:tr>"
    rows += f"<w:tr><w:trPr><w:gridBefore w:val='2'/></w:trPr>{cell('x')}</w:tr>"
    rows += f"<w:tr><w:trPr><w:hidden/></w:trPr>{cell('h1')}{cell('h2')}</w:tr>"
    grid = "<w:tblGrid><w:gridCol/><w:gridCol/><w:gridCol/></w:tblGrid>"
    data = word_file(f"<w:tbl><w:tblPr/>{grid}{rows}</w:tbl><w:p/>")
    with pytest.warns(UserWarning, match=r"a\.docx holds hidden text, which is not read: 'h1 h2'"):
        assert read_document_file(data, name="a.docx") == "| a | b | c |\n|  |  | x |"


@pytest.mark.parametrize(
    ("chunk", "content", "text"),
    [
        ("chunk.htm", "<p>Inside <b>42</b>", "Inside 42"),
        ("chunk.txt", "Inside 42", "Inside 42"),
        ("chunk.mht", "Content-Type: text/html\n\n<p>Inside 42", "\nInside 42"),
        ("chunk.docx", word_file(f"<w:p>{run('Inside 42')}</w:p>"), "Inside 42"),
    ],
)
def test_files_that_a_word_file_holds_as_its_text_are_read(chunk: str, content: str | bytes, text: str) -> None:
    body = f'<w:p>{run("Before.")}</w:p><w:altChunk r:id="r1"/>'
    data = word_file(body, {f"word/{chunk}": content}, chunk)
    assert read_document_file(data, name="a.docx") == f"Before.\n{text}"


def test_a_file_of_another_kind_within_a_word_file_is_named() -> None:
    data = word_file(f"<w:p>{run('Before.')}</w:p>", {"word/chunk.xyz": "?"}, "chunk.xyz")
    with pytest.warns(UserWarning, match=r"a\.docx: its part word/chunk\.xyz is not read"):
        assert read_document_file(data, name="a.docx") == "Before."


DRAWING = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
TITLE = "<a:p><a:r><a:t>Sales</a:t></a:r></a:p>"


def points(tag: str, *values: str) -> str:
    inner = "".join(f'<c:pt idx="{number}"><c:v>{value}</c:v></c:pt>' for number, value in enumerate(values))
    return f"<c:{tag}><c:x><c:cache>{inner}</c:cache></c:x></c:{tag}>"


def test_charts_and_diagrams_are_read() -> None:
    series = "".join((points("tx", "North"), points("cat", "2023", "2024"), points("val", "9", "11")))
    uneven = points("xVal", "1", "2") + points("yVal", "7")
    chart = f"<c:title>{TITLE}</c:title><c:ser>{series}</c:ser><c:ser>{uneven}</c:ser>"
    space = 'xmlns:c="http://schemas.openxmlformats.org/drawingml/2006/chart"'
    more = {
        "word/charts/chart1.xml": f"<c:chartSpace {space} {DRAWING}>{chart}</c:chartSpace>",
        "word/diagrams/data1.xml": f"<d:m xmlns:d='urn:d' {DRAWING}><d:pt>{TITLE}</d:pt><d:pt>{TITLE}</d:pt></d:m>",
    }
    assert read_document_file(word_file(f"<w:p>{run('x')}</w:p>", more), name="a.docx") == (
        "x\n[chart: Sales; North 2023: 9, 2024: 11; 1, 2, 7]\n[diagram: Sales; Sales]"
    )


def test_lettering_and_watermarks_are_read() -> None:
    art = '<w:r><w:pict><v:a xmlns:v="urn:schemas-microsoft-com:vml"><v:textpath string="{}"/></v:a></w:pict></w:r>'
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    header = {"word/header1.xml": f"<w:hdr {space}><w:p>{art.format('DRAFT 7')}</w:p></w:hdr>"}
    data = word_file(f"<w:p>{run('x')}{art.format('Welcome')}</w:p>", header)
    assert read_document_file(data, name="a.docx") == "x\n[lettering: Welcome]\n[watermark: DRAFT 7]"


@pytest.mark.parametrize(
    "grid",
    [
        "",
        "<w:tblGrid/>",
        '<w:tblGrid><w:gridCol w:w="9"/></w:tblGrid>',
        "<w:tblGrid><w:gridCol/><w:gridCol/></w:tblGrid>",
    ],
)
def test_cells_beyond_the_columns_that_a_table_counts_are_read(grid: str) -> None:
    def row(*texts: str, more: str = "") -> str:
        cells = "".join(f"<w:tc>{more}<w:p>{run(text)}</w:p></w:tc>" for text in texts)
        return f"<w:tr>{cells}</w:tr>"

    inner = f"<w:tbl>{grid}{row('x', 'y')}{row('5', '6')}</w:tbl>"
    wide = row("all", more='<w:tcPr><w:gridSpan w:val="3"/></w:tcPr>')
    body = f"<w:tbl><w:tblPr/>{grid}{wide}{row('1', '2', '3')}</w:tbl><w:p/>{inner}"
    text = "| all | all | all |\n| 1 | 2 | 3 |\n| x | y |\n| 5 | 6 |"
    assert read_document_file(word_file(body), name="a.docx") == text


def field(code: str, result: str, ends: bool = True) -> str:
    def border(kind: str) -> str:
        return f'<w:r><w:fldChar w:fldCharType="{kind}"/></w:r>'

    return f"{border('begin')}{code}{border('separate')}{result}{border('end') * ends}"


def code(text: str) -> str:
    return f"<w:r><w:instrText>{text}</w:instrText></w:r>"


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        (field(code("IF ") + field(code("MERGEFIELD a"), run("no")) + code(" = 1"), run("yes")), "yes"),
        (field(code("REF a"), field(code("PAGE"), run("7")) + run(" yes")), "7 yes"),
        (field(code("REF a"), run("yes"), ends=False) + run(" and more"), "yes and more"),
        ('<w:r><w:fldChar w:fldCharType="begin"/></w:r></w:p><w:p>' + run("yes"), "yes"),
    ],
)
def test_of_a_field_in_the_code_of_another_nothing_is_read(inside: str, text: str) -> None:
    assert read_document_file(word_file(f"<w:p>{inside}</w:p>"), name="a.docx") == text


@pytest.mark.parametrize("more", ["", '<w:trPr><w:gridAfter w:val="1"/></w:trPr>'])
def test_rows_behind_a_shorter_one_keep_their_cells(more: str) -> None:
    def row(*texts: str) -> str:
        return f"<w:tr>{more}{''.join(f'<w:tc><w:p>{run(text)}</w:p></w:tc>' for text in texts)}</w:tr>"

    grid = '<w:tblGrid><w:gridCol w:w="900"/><w:gridCol w:w="900"/><w:gridCol w:w="900"/></w:tblGrid>'
    body = f"<w:tbl><w:tblPr/>{grid}{row('Rent')}{row('1', '2', '3')}{row('4', '5')}</w:tbl>"
    assert read_document_file(word_file(body), name="a.docx") == "| Rent |  |  |\n| 1 | 2 | 3 |\n| 4 | 5 |  |"
