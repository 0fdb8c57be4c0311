# SPDX-License-Identifier: Apache-2.0
"""Numbers that Word counts: of headings, clauses and lists, by paragraphs and by styles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from office_samples import WORD, word_file

from transformers_hybridctx.documents.files import read_document_file
from transformers_hybridctx.documents.word_lists import formatted

SPACE = f'xmlns:w="{WORD}"'


def level(text: str, kind: str = "decimal", more: str = "", start: int = 1) -> str:
    return f'<w:start w:val="{start}"/><w:numFmt w:val="{kind}"/>{more}<w:lvlText w:val="{text}"/>'


def levels(*inner: str) -> str:
    return "".join(f'<w:lvl w:ilvl="{at}">{one}</w:lvl>' for at, one in enumerate(inner))


def paragraph(text: str, number: int | None = None, at: int | None = 0, style: str = "", more: str = "") -> str:
    styled = f'<w:pStyle w:val="{style}"/>' * bool(style)
    ilvl = "" if at is None else f'<w:ilvl w:val="{at}"/>'
    listed = "" if number is None else f'<w:numPr>{ilvl}<w:numId w:val="{number}"/></w:numPr>'
    return f"<w:p><w:pPr>{styled}{listed}{more}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def style(key: str, inside: str, name: str = "", more: str = "") -> str:
    named = f'<w:style w:type="paragraph" w:styleId="{key}"{more}><w:name w:val="{name or key}"/>'
    return f"{named}{inside}</w:style>"


def read(
    body: Sequence[str],
    definitions: Sequence[str],
    numbers: Sequence[tuple[int, str]] | None = None,
    styles: str = "",
    more: Mapping[str, str] | None = None,
) -> str:
    """What is read of paragraphs; number 1, ... are of the definitions in their order unless `numbers` says otherwise."""
    abstract = "".join(
        f'<w:abstractNum w:abstractNumId="{key}">{one}</w:abstractNum>' for key, one in enumerate(definitions)
    )
    said = [(key, "") for key in range(len(definitions))] if numbers is None else numbers
    nums = "".join(
        f'<w:num w:numId="{key}"><w:abstractNumId w:val="{of}"/>{over}</w:num>'
        for key, (of, over) in enumerate(said, 1)
    )
    parts = {
        "word/numbering.xml": f"<w:numbering {SPACE}>{abstract}{nums}</w:numbering>",
        "word/styles.xml": f"<w:styles {SPACE}>{styles}</w:styles>",
        **(more or {}),
    }
    return str(read_document_file(word_file("".join(body), parts), name="a.docx"))


OUTLINE = levels(level("%1"), level("%1.%2"), level("%1.%2.%3"))
CONTRACT = levels(level("%1."), level("%1.%2"), level("(%3)", "lowerLetter"), level("(%4)", "lowerRoman"))


def test_headings_have_the_numbers_of_their_styles() -> None:
    pytest.importorskip("pypandoc")
    definition = levels(
        *(f'<w:pStyle w:val="H{at + 1}"/>{level(text)}' for at, text in enumerate(("%1", "%1.%2", "%1.%2.%3")))
    )
    numbered = "<w:pPr><w:numPr><w:numId w:val='1'/></w:numPr></w:pPr>"
    off = "<w:pPr><w:numPr><w:numId w:val='0'/></w:numPr></w:pPr>"
    styles = style("H1", numbered, "heading 1") + style("H2", f'<w:basedOn w:val="H1"/>{numbered}', "heading 2")
    styles += style("H3", '<w:basedOn w:val="H2"/>', "heading 3") + style(
        "Off", f'<w:basedOn w:val="H1"/>{off}', "Front"
    )
    body = [
        paragraph(text, style=key) for text, key in (("A", "H1"), ("B", "H2"), ("C", "H3"), ("D", "H3"), ("E", "H1"))
    ]
    body += [paragraph("Front", style="Off"), paragraph("Annex", 0, style="H1"), paragraph("F", style="H2")]
    assert read(body, [definition], styles=styles).split("\n") == [
        *("# 1 A", "## 1.1 B", "### 1.1.1 C", "### 1.1.2 D", "# 2 E", "# Front", "# Annex", "## 2.1 F")
    ]


def test_clauses_of_a_contract() -> None:
    pytest.importorskip("pypandoc")
    said = [("Term", 0), ("Start", 1), ("one", 2), ("deep", 3), ("deeper", 3), ("two", 2), ("End", 1), ("three", 2)]
    body = [paragraph(text, 1, at) for text, at in (*said, ("Rent", 0), ("Sum", 1))]
    body.insert(3, paragraph("Between clauses."))
    assert read(body, [CONTRACT]).split("\n") == [
        *("1. Term", "1.1 Start", "(a) one", "Between clauses.", "(i) deep", "(ii) deeper", "(b) two", "1.2 End"),
        *("(a) three", "2. Rent", "2.1 Sum"),
    ]


def test_lists_of_one_definition_count_on_unless_they_start_anew() -> None:
    pytest.importorskip("pypandoc")
    anew = '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="7"/></w:lvlOverride>'
    other = f'<w:lvlOverride w:ilvl="0"><w:lvl w:ilvl="0">{level("Article %1:", "upperRoman")}</w:lvl></w:lvlOverride>'
    numbers = [(0, ""), (0, ""), (0, anew), (0, other)]
    body = [paragraph(text, number) for text, number in zip("abcdef", (1, 2, 3, 3, 1, 4), strict=True)]
    assert read(body, [CONTRACT], numbers).split("\n") == [*("1. a", "2. b", "7. c", "8. d", "9. e", "Article X: f")]


@pytest.mark.parametrize(
    ("restart", "numbers"),
    [("", "1.1.1 1.1.2 1.2.1 2.1.1"), ("1", "1.1.1 1.1.2 1.2.3 2.1.1"), ("0", "1.1.1 1.1.2 1.2.3 2.1.4")],
)
def test_levels_start_anew_where_they_say(restart: str, numbers: str) -> None:
    pytest.importorskip("pypandoc")
    said = f'<w:lvlRestart w:val="{restart}"/>' * bool(restart)
    definition = levels(level("%1"), level("%1.%2"), level("%1.%2.%3", more=said))
    lines = read([paragraph("x", 1, at) for at in (0, 1, 2, 2, 1, 2, 0, 2)], [definition]).split("\n")
    assert " ".join(line.split()[0] for line in lines if line.count(".") == 2) == numbers


@pytest.mark.parametrize(
    ("inner", "line"),
    [
        (level("Section %1.%2", "decimalZero", "<w:isLgl/>"), "Section 4.01 x"),
        (level("%1-%2", "upperLetter"), "IV-A x"),
        (level("§ %2", more='<w:suff w:val="nothing"/>'), "§ 1x"),
        (level("%2)", more='<w:suff w:val="space"/>', start=5), "5) x"),
        (level("", "none"), "x"),
        (level("Note:", "none"), "Note: x"),
        (level("%2 &amp; %9", "ordinal"), "1st & x"),
        (level("•", "bullet"), "- x"),
        (level(" ", "bullet"), "x"),
        (level("%2.", more="<w:rPr><w:vanish/></w:rPr>"), "x"),
    ],
)
def test_how_a_number_is_written(inner: str, line: str) -> None:
    pytest.importorskip("pypandoc")
    body = [paragraph("up", 1), paragraph("x", 1, 1)]
    first, second = read(body, [levels(level("%1.", "upperRoman", start=4), inner)]).split("\n")
    assert (first, second.strip()) == ("IV. up", line)


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("decimal", {0: "0", 12: "12"}),
        ("decimalZero", {3: "03", 12: "12"}),
        ("lowerLetter", {1: "a", 26: "z", 27: "aa", 28: "bb", 900: "900"}),
        ("upperLetter", {2: "B", 53: "AAA", 0: "0"}),
        ("lowerRoman", {4: "iv", 4000: "4000"}),
        ("upperRoman", {1990: "MCMXC"}),
        ("ordinal", {1: "1st", 2: "2nd", 3: "3rd", 11: "11th", 13: "13th", 22: "22nd", 111: "111th"}),
        ("001", {7: "007", 1234: "1234"}),
        ("chineseCountingThousand", {5: "五", 10: "十", 14: "十四", 20: "二十", 101: "一百零一", 1010: "一千零一十"}),
        ("none", {3: ""}),
        ("hindiVowels", {3: "3"}),
    ],
)
def test_kinds_of_numbers(kind: str, numbers: dict[int, str]) -> None:
    assert {number: formatted(number, kind) for number in numbers} == numbers


def test_a_list_whose_levels_a_list_style_holds() -> None:
    pytest.importorskip("pypandoc")
    definitions = ['<w:numStyleLink w:val="Legal"/>', f'<w:styleLink w:val="Legal"/>{OUTLINE}']
    assert read([paragraph("a", 1), paragraph("b", 1, 1)], definitions) == "1 a\n1.1 b"


def test_paragraphs_of_the_default_style_and_of_a_custom_format() -> None:
    pytest.importorskip("pypandoc")
    numbered = "<w:pPr><w:numPr><w:numId w:val='1'/></w:numPr></w:pPr>"
    custom = '<mc:Choice Requires="w14"><w:numFmt w:val="custom" w:format="001, 002, 003, ..."/></mc:Choice>'
    space = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    other = '<mc:Fallback><w:numFmt w:val="decimal"/></mc:Fallback>'
    both = f"<mc:AlternateContent {space}>{custom}{other}</mc:AlternateContent>"
    definition = levels(f'<w:start w:val="9"/>{both}<w:lvlText w:val="[%1]"/>')
    styles = style("Normal", numbered, more=' w:default="1"')
    body = ["<w:p><w:r><w:t>a</w:t></w:r></w:p>", paragraph("b"), "<w:p><w:pPr/><w:r><w:t>c</w:t></w:r></w:p>"]
    assert read(body, [definition], styles=styles) == "[009] a\n[010] b\n[011] c"


def test_hidden_and_deleted_paragraphs_are_not_counted() -> None:
    pytest.importorskip("pypandoc")
    hidden = "<w:rPr><w:vanish/></w:rPr>"
    run = f"<w:r>{hidden}<w:t>secret</w:t></w:r>"
    properties = '<w:pPr><w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr>{}</w:pPr>'
    mark = '<w:rPr><w:del w:id="1" w:author="a"/></w:rPr>'
    before = '<w:pPrChange w:id="2" w:author="a"><w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr></w:pPrChange>'
    gone = '<w:del w:id="3" w:author="a"><w:r><w:delText>gone</w:delText></w:r></w:del>'
    body = [
        paragraph("a", 1),
        f"<w:p>{properties.format(hidden)}{run}</w:p>",
        f"<w:p>{properties.format(mark)}{gone}</w:p>",
        f"<w:p>{properties.format(mark)}<w:r><w:t>joined to </w:t></w:r></w:p>",
        paragraph("b", 1),
        paragraph("no list any more", more=before),
        paragraph("c", 1),
    ]
    with pytest.warns(UserWarning, match="hidden text, which is not read: 'secret'"):
        assert read(body, [CONTRACT]) == "1. a\n2. joined to b\nno list any more\n3. c"


def test_cells_bullets_text_boxes_and_notes_count_for_themselves() -> None:
    pytest.importorskip("pypandoc")
    definitions = [CONTRACT, levels(level("•", "bullet"), level("–", "bullet"))]
    box = f"<w:txbxContent>{paragraph('in a box', 1)}</w:txbxContent>"
    shapes = f"<mc:Choice Requires='wps'>{box}</mc:Choice><mc:Fallback><w:pict>{box}</w:pict></mc:Fallback>"
    rows = "".join(
        f"<w:tr><w:tc>{paragraph('', 1)}</w:tc><w:tc>{paragraph(text)}</w:tc></w:tr>" for text in ("North", "South")
    )
    body = [
        paragraph("a", 1),
        paragraph("x", 2),
        paragraph("y", 2, 1),
        paragraph("b", 1),
        f"<w:p><w:r><mc:AlternateContent>{shapes}</mc:AlternateContent></w:r></w:p>",
        f"<w:tbl><w:tblPr/><w:tblGrid><w:gridCol/><w:gridCol/></w:tblGrid>{rows}</w:tbl>",
        paragraph("c", 1),
    ]
    header = {"word/header1.xml": f"<w:hdr {SPACE}>{paragraph('Head', 1)}</w:hdr>"}
    assert read(body, definitions, more=header).split("\n") == [
        *("1. a", "- x", "  - y", "2. b", "| 3. | North |", "| 4. | South |", "5. c"),
        *("[text box: 1. in a box]", "[header: 1. Head]"),
    ]


def test_a_damaged_header_does_not_cost_the_numbers_of_the_text() -> None:
    pytest.importorskip("pypandoc")
    with pytest.warns(UserWarning, match=r"header1\.xml is not looked through"):
        assert read([paragraph("a", 1)], [CONTRACT], more={"word/header1.xml": "<a><b></a>"}) == "1. a"


def test_lines_of_tight_lists_stay_lines() -> None:
    pytest.importorskip("pypandoc")
    body = [paragraph("x", 2), paragraph("a", 1, style="Compact"), paragraph("b", 1, style="Compact")]
    definitions = [CONTRACT, levels(level("•", "bullet"))]
    assert read(body, definitions, styles=style("Compact", "")) == "- x\n1. a\n2. b"


def test_damaged_definitions_of_lists_are_reported() -> None:
    pytest.importorskip("pypandoc")
    with pytest.warns(UserWarning, match=r"a\.docx: the numbers of its headings and lists are not read: no element"):
        assert read([paragraph("a", 1)], [CONTRACT], more={"word/numbering.xml": "<a><b>"}) == "a"


def test_a_paragraph_of_a_style_that_is_not_defined_is_of_the_default_one() -> None:
    numbered = "<w:pPr><w:numPr><w:numId w:val='1'/></w:numPr></w:pPr>"
    normal = style("N", numbered, more=' w:default="1"')
    assert read([paragraph("one", style="Gone"), paragraph("two")], [levels(level("%1."))], styles=normal) == (
        "1. one\n2. two"
    )
