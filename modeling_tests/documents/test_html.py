# SPDX-License-Identifier: Apache-2.0
"""HTML as what a reader sees of it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from transformers_hybridctx.documents.files import read_document_file
from transformers_hybridctx.documents.html import html_text
from transformers_hybridctx.documents.html_nesting import MAX_DEPTH


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<h1>Big  news</h1>\n<p>One <b>bold</b> &amp; <i> wide</i>\n line</p>", "# Big news\nOne bold & wide line"),
        ("one<br>two<br/>three", "one\ntwo\nthree"),
        ("<pre>\ndef f():\n\n    return 1\n</pre>", "def f():\n\n    return 1"),
        ("<style>p {}</style></head><script>1 < 2</script><p>seen", "seen"),
        ("<head><meta charset=utf-8><p>a head that is never closed", "a head that is never closed"),
        ("<ul><li>one<li><p>two</p><ul><li>deep</ul><li></ul><ol start=3><li>c</ol>", "- one\n- two\n  - deep\n3. c"),
        (
            "<ol><li value=5>a<li>b</ol><ol reversed><li>a<li>b</ol><ol reversed start=9><li>c</ol>",
            "5. a\n6. b\n2. a\n1. b\n9. c",
        ),
        (
            "<ol type=a start=26><li>x<li>y</ol><ol type=I start=4><li>z</ol><ol type=i start=4000><li>w",
            "z. x\naa. y\nIV. z\n4000. w",
        ),
        (
            "<ol start=-1><li>a<li>b</ol><ol start=2024001><li>c<li value=-3>d</ol><ol start=99999999999><li>e",
            "-1. a\n0. b\n2024001. c\n-3. d\n1. e",
        ),
        (
            "<ol style='list-style-type: lower-roman'><li>a<li>b</ol><ol style='list-style: upper-alpha'><li>c",
            "i. a\nii. b\nA. c",
        ),
        ("<title>T</title><h1>Other</h1>", "T\n# Other"),
        ("<title>The  same</title><h1>The <i>same</i></h1>", "# The same"),
        ("see <a href='https://x.org/a b'>the <b>list</b></a>.", "see [the list](https://x.org/a b)."),
        ("<a href='#top'>up</a> <a name=x>here</a> <a href=y></a>end", "up here end"),
        ("<a href=x><div>block</div></a><p>next", "[block](x)\nnext"),
        ("a<img alt='a  chart' src=c.png>b<img src=d.png>", "a ![a chart] b"),
        ("1 < 2 * 3 _a_ x*y*z", "1 < 2 * 3 _a_ x*y*z"),
        ("", ""),
        ("bad \ud800 code", "bad ? code"),
    ],
)
def test_markup_becomes_what_a_reader_sees(markup: str, text: str) -> None:
    assert html_text(markup) == text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("price <del>100</del><ins>120</ins>", "price ~~100~~ 120"),
        ("<s>5</s>6<strike>7</strike>8", "~~5~~ 6~~7~~ 8"),
        ("10<sup>6</sup> items<sup>2</sup>", "10^6 items^2"),
        ("<select><option>12<option>13</select>", "12\n13"),
        ("<select><option>Red</option><option selected>Blue</option></select>", "[ ] Red\n[x] Blue"),
        ("<button>12</button><button>13</button>", "12 13"),
        ("<label>Sum</label><input value=12><input type=hidden value=7><input value=13>", "Sum 12 13"),
        ("<input type=checkbox checked>yes<input type=radio>no", "[x] yes [ ] no"),
        ("<select><option>a<select><option selected>b</select></option></select>c", "a\nb\nc"),
        ("<textarea> a\n  b</textarea>1", " a\n  b\n1"),
        ("<ruby>漢<rp>(</rp><rt>kan</rt></ruby>", "漢(kan)"),
        ("<b style='display:block'>12</b><b style='display:block'>13</b>", "12\n13"),
        ("<style>.f{display:flex}</style><p class=f><b>1</b><b>2</b></p>3", "1\n2\n3"),
        ("<b style='display: table-cell'>3</b><b style='display: table-cell'>4", "3\n4"),
        ("<style>b{display:block} i b{display:inline}</style><i><b>1</b><b>2</b></i>", "12"),
        (
            "<svg><title>T</title><text>12</text><text>13<tspan x=0 dy=9>14</tspan><tspan dx=1>15</tspan></text></svg>",
            "T\n12 13 1415",
        ),
        ("<math><mfrac><mn>1</mn> <mn>2</mn></mfrac><msup><mi>x</mi><mn>3</mn></msup></math>", "1/2x^3"),
        (
            "<math><mfrac><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow><msqrt><mi>c</mi><mi>d</mi></msqrt></mfrac>"
            "<annotation encoding='application/x-tex'>x</annotation></math>",
            "(a+b)/√(cd)",
        ),
        (
            "<math><munderover><mo>∑</mo><mn>1</mn><mn>9</mn></munderover><mroot><mn>8</mn><mn>3</mn></mroot>",
            "∑_1^9√8^1/3",
        ),
        ("<p>1<noscript>2</noscript>3", "1\n2\n3"),
        ("a<iframe srcdoc='<b hidden>x</b><p>1</p>2'></iframe>b<iframe src=x></iframe>", "a\n1\n2\nb"),
        (
            "<div>a<template shadowrootmode=open title='>'><style>p{display:none}</style><p>x</p><b>1</b></template><p>2",
            "a\n1\n2",
        ),
    ],
)
def test_what_a_page_shows_apart_does_not_become_one_number(markup: str, text: str) -> None:
    assert html_text(markup) == text


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (
            "<tr><th></th><th>2023</th><th>2024</th></tr><tr><td>Sales</td><td></td><td>9</td></tr>",
            "|  | 2023 | 2024 |\n| --- | --- | --- |\n| Sales |  | 9 |",
        ),
        ("<tr><td><p>Ada</p></td><td><p>5</p></td></tr><tr><td>Bob<td>7", "| Ada | 5 |\n| Bob | 7 |"),
        (
            "<tr><th colspan=2>Both<th>C<tr><td rowspan=2>x<td>1<td>2<tr><td>3<td>4",
            "| Both | Both | C |\n| --- | --- | --- |\n| x | 1 | 2 |\n| x | 3 | 4 |",
        ),
        ("<tr><td rowspan=0>x<td>1<tr><td>2<tr><td>3", "| x | 1 |\n| x | 2 |\n| x | 3 |"),
        ("<caption>Title</caption><tr><td>a|b<td>c<br>d", "Title\n| a\\|b | c d |"),
        ("<tr><td colspan=1000>all<tr><td>1<td>2", "| all | all |\n| 1 | 2 |"),
        ("<tr><td>short<tr><td>1<td>2", "| short |  |\n| 1 | 2 |"),
        ("<tr><td>one<tr><td>column", "one\ncolumn"),
        ("<tr><td>Left<td><table><tr><td>1<td>2</table>", "Left\n| 1 | 2 |"),
        ("", ""),
    ],
)
def test_every_cell_stands_in_its_column(rows: str, text: str) -> None:
    assert html_text(f"<table>{rows}</table>") == text


INNER = "<table><tr><td>1<td><td>2<tr><td>3<td>4<td></table>"


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        (
            f"<table><tr><th>A<th>B<th>C<tr><td>x<td><td>{INNER}<tr><td>y<td><td></table><p>after",
            "| A | B | C |\n| --- | --- | --- |\n| x |  | [table 1] |\n| y |  |  |\n"
            "[table 1]\n| 1 |  | 2 |\n| 3 | 4 |  |\nafter",
        ),
        (
            "<table><tr><td>a<td>b<tr><td><td>see <table><tr><td>c<td><table><tr><td>d<td></table></table> there</table>"
            "<table border=1><tr><td><td><table><tr><td>e<td>f</table></table>",
            "| a | b |\n|  | see [table 1] there |\n[table 1]\n| c | [table 2] |\n[table 2]\n| d |  |\n"
            "|  | [table 3] |\n[table 3]\n| e | f |",
        ),
        (
            "<table><tr><td>a<td><table><tr><td>one<tr><td>two</table><tr><td><td>b</table>",
            "| a | one two |\n|  | b |",
        ),
        (
            "<table border=1><tr><td>a<td><table role=none><tr><td>one<td><table><tr><td>9<td>8</table></table></table>",
            "| a | one [table 1] |\n[table 1]\n| 9 | 8 |",
        ),
        (
            "<table cellpadding=0><tr><td colspan=2>top<tr><td>menu<td><p>long<table><tr><td>1<td>2</table></table>",
            "top\nmenu\nlong\n| 1 | 2 |",
        ),
        (
            "<table><tr><td>menu<td><h1>Page</h1><tr><td><td><table><tr><td>1<td>2</table></table>",
            "menu\n# Page\n| 1 | 2 |",
        ),
        ("<table><tr><td><table><tr><td>1<td>2</table><tr><td>below</table>", "| 1 | 2 |\nbelow"),
        ("<table><tr><td>a<td>b<tr><td><td><table hidden><tr><td>1<td>2</table></table>", "| a | b |\n|  |  |"),
    ],
)
def test_a_table_in_a_cell_leaves_the_outer_one_its_columns(markup: str, text: str) -> None:
    assert html_text(markup) == text


def test_a_table_for_layout_is_no_table() -> None:
    assert html_text("<table role=presentation><tr><td>one<td>two</table>") == "one\ntwo"


@pytest.mark.parametrize(
    "hidden",
    [
        "<p hidden>x</p>",
        "<p style='color: red; DISPLAY : none'>x</p>",
        "<p style='visibility:hidden'>x</p>",
        "<div style='font-size:0'>x</div>",
        "<template>x</template>",
        "<dialog>x</dialog>",
        "<noframes>x</noframes>",
        "<!-- x -->",
        "<style>.note, #n2 { margin: 0; display: none }</style><p class=note>x</p><p id=n2>x</p>",
        "<style>p:is(.m, .n), .z::after { display: none }</style><p class=n>x",
        "<style>#k .t { display: none } .t { display: block }</style><div id=k><p class=t>x</div>",
        "<table style='visibility: hidden'><tr><td>x<td>x</table>",
        "<h1 style='opacity: 0.0'>x</h1><img style='visibility: hidden' alt=x>",
    ],
)
def test_hidden_elements_are_left_out(hidden: str) -> None:
    assert html_text(f"<p>a</p>{hidden}<p>b") == "a\nb"


@pytest.mark.parametrize(
    ("how", "row"),
    [
        ("style='visibility: hidden'", "| 1 |  | 3 |"),
        ("style='opacity: 0'", "| 1 |  | 3 |"),
        ("style='font-size: 0px'", "| 1 |  | 3 |"),
        ("class=blank", "| 1 |  | 3 |"),
        ("style='display: none'", "| 1 | 3 |  |"),
        ("hidden", "| 1 | 3 |  |"),
    ],
)
def test_a_hidden_cell_that_takes_its_room_is_empty(how: str, row: str) -> None:
    page = f"<style>.blank {{ visibility: hidden }}</style><table><tr><th>A<th>B<th>C<tr><td>1<td {how}>2<td>3</table>"
    assert html_text(page) == f"| A | B | C |\n| --- | --- | --- |\n{row}"


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<div style='visibility:hidden'>a<b style='visibility:visible'>b</b>c</div>", "b"),
        ("<ol style='visibility:hidden'><li>a<li style='visibility:visible'>b</ol>", "2. b"),
        (
            "<div style='font-size:0'><i style='font-size:9px'>1</i> <i style='font:9px x'>2</i><i style='font-size:1em'>"
            "3",
            "1 2",
        ),
        ("<style>.p { display: none } .on { display: block }</style><p class=p>a<p class='p on'>b", "b"),
        (
            "<style>.no { display: none !important } @media (width > 9px) { .wide { display: block !important } }</style>"
            "<p class=no>a<p class='no wide'>b",
            "b",
        ),
        ("<p hidden style='display: block'>b", "b"),
        ("<style>p { display: none } .on { display: revert }</style><p>a<p class=on>b", "b"),
        ("<style>i::before { content: '}p { display: none } /*' }</style><p>b", "b"),
        ("<style>[id='a;b'] { display: none }</style><p id='a;b'>a<p id=ab>b", "b"),
        ("<noscript><style>p { display: none }</style></noscript><p>b", "b"),
        ("<p style='opacity:0; transition: opacity 1s'>b<p style='font-size:0.9em; opacity:.5'>c", "b\nc"),
        ("12<b style='visibility:hidden'>,</b>13<b style='font-size:0'>,</b>14", "12 1314"),
    ],
)
def test_what_is_shown_within_or_after_what_is_hidden_is_read(markup: str, text: str) -> None:
    assert html_text(markup) == text


def test_pages_in_pages_are_bounded() -> None:
    page = "x"
    for _ in range(12):
        page = f'<iframe srcdoc="{page.replace("&", "&amp;").replace(chr(34), "&quot;")}"></iframe>'
    with pytest.raises(ValueError, match="pages stand within pages more than 8 deep"):
        html_text(page)


def test_hidden_text_is_reported() -> None:
    page = (
        "<p hidden>one <script>x</script><b>two</b></p><p style='visibility:hidden'>three</p><template>x</template>4"
    )
    with pytest.warns(UserWarning, match=r"a\.html holds hidden text, which is not read: 'one two three'; show it"):
        assert html_text(page, "a.html") == "4"


def test_what_only_other_media_hide_is_seen() -> None:
    assert html_text("<style>@media print { .n { display: none } } b{}</style><p class=n>a<dialog open>b") == "a\nb"


# Growth: the work for 4n is about four times that for n, where a corner is quadratic 16 times


@pytest.mark.parametrize(
    "page",
    [
        lambda n: f"<pre>{' ' * n}</pre>x",
        lambda n: f"<p>{' ' * n}x",
        lambda n: "<table><tr>" + "<td>1" * n,
        lambda n: "<table>" + "<tr><td>1<td>b" * n,
        lambda n: "<table>" + "<tr><td rowspan=60000 colspan=1000>1<td>b" * n,
        lambda n: f"<table><tr>{'<td>1' * n}{'<tr><td>2' * n}",
        lambda n: "<select>" + "<option selected>1" * n,
        lambda n: "<style>" + ".a{display:none}" * n + "</style><p class=a>" * 9,
        lambda n: "<style>" + "a /*" * n + "</style>x",
        lambda n: "<style>" + "a," * n + "b{display:none}" + "(" * n + "</style>x",
        lambda n: f"<style>{'.a{font-size:0}b i{font-size:9px}' * 99}</style><p class=a>" + "<b>x" * (n // 40),
        lambda n: "<a name=x>1" * n,
        lambda n: "<table><tr><td>1<td>2<tr><td>3<td>" + "<table><tr><td>a<td>b</table>" * n,
        lambda n: "<table><tr><td>1<td>2<tr><td>3<td>" * (n // 40),
        lambda n: "x<br>" * n,
        lambda n: "<" * n + "<!--" * n + "<script>" * n,
    ],
)
def test_time_grows_with_the_page_not_with_its_square(page: Callable[[int], str]) -> None:
    assert _seconds(page(8_000)) < 10 * _seconds(page(2_000)) + 0.05


def _seconds(markup: str) -> float:
    seconds = []
    for _ in range(3):
        started = time.process_time()
        html_text(markup)
        seconds.append(time.process_time() - started)
    return min(seconds)


@pytest.mark.parametrize("tag", ["div", "b", "table><tr><td", "ul><li", "q"])
def test_depth_is_bounded(tag: str) -> None:
    with pytest.raises(ValueError, match=r"nested deeper than 2,000 \(character .*save it as text"):
        html_text(f"<{tag}>" * (MAX_DEPTH + 1))
    deep = MAX_DEPTH // 2
    assert "deep" in html_text("<div>" * deep + "deep" + "</div>" * deep)


def test_markup_in_scripts_and_comments_does_not_count_as_depth() -> None:
    inert = "<script>" + "'<div>'" * 3_000 + "</script><!--" + "<div>" * 3_000 + "-->"
    assert html_text(inert + "<p>seen") == "seen"


def test_words_of_a_drawing_are_read() -> None:
    shapes = "<metadata>no</metadata><style>.a{}</style><text>Sales <tspan>9</tspan></text><text>Cost 4</text>"
    root = '<svg xmlns="http://www.w3.org/2000/svg">'
    drawing = f'<?xml version="1.0" encoding="latin-1"?>{root}<title>É</title>{shapes}</svg>'
    assert read_document_file(drawing.encode("latin-1"), name="a.svg") == "É\nSales 9 Cost 4"
