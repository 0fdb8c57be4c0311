# SPDX-License-Identifier: Apache-2.0
"""What the rasteriser promises, page by page."""

import hashlib
import math
import pickle
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont

from transformers_hybridctx.rendering import atlas as glyph_atlas
from transformers_hybridctx.rendering import rasterizing
from transformers_hybridctx.rendering.atlas import PHASES, GlyphAtlas, fill_outlines
from transformers_hybridctx.rendering.characters import MISSING_GLYPH, NO_GLYPH
from transformers_hybridctx.rendering.fonts import FontChain
from transformers_hybridctx.rendering.rasterizing import PageRenderer, mark_boxes, unroll_strip
from transformers_hybridctx.rendering.settings import BUNDLED_MONO, BUNDLED_SANS, RenderConfig
from transformers_hybridctx.rendering.typesetting import Typesetter

# The configuration that hybridctx-tiny was trained on. Its pixels and line breaks must never change.
TINY = RenderConfig(
    page_width=576,
    page_height=756,
    margin_x=0,
    margin_y=0,
    font_size=6 * 2048 / 1233,
    line_height=12,
    page_multiple=36,
    auto_crop_last_page=True,
    newline_markup="¶",
)
GUARD_TEXT = "".join(
    f"{number}. The quick brown fox – “jumps” over the lazy dog’s back; 0123456789 (a+b)*[c]={{d}} O0Il1|!?@#$%^&\n"
    f"  The special magic number for lively-okapi-{number} is: {7919 * number}. \r\n"
    f"\tdef f(x): return x ** {number}   # é"
    f" {'w' * (number * 7)} 8f14e45f-ceea-467f-a0d3-{number:012d}\n\n"
    for number in range(40)
)


# Tabs were as wide as four blanks when the configuration was trained, and its text had none.
UNTABBED = GUARD_TEXT.replace("\t", "    ")


def digest(pages):
    total = hashlib.sha256()
    for page in pages:
        total.update(repr(page.shape).encode() + page.tobytes())
    return total.hexdigest()


def test_pixels_of_the_trained_configuration_never_change():
    document = PageRenderer(TINY).render(UNTABBED)
    assert [page.shape for page in document.pages] == [(756, 576), (756, 576), (576, 576)]
    assert digest(document.pages) == "1e71542059474e580d12bf09848fab7c1b5e60c9ab366754c687646120ad7d8e"


def test_line_breaks_of_the_trained_configuration_never_change():
    lines = PageRenderer(TINY).typeset(UNTABBED).lines
    spans = repr([(line.page, line.start, line.end) for line in lines])
    assert (
        hashlib.sha256(spans.encode()).hexdigest()
        == "7a760d370c3d66460b651e62ecca7e6fdb3831e730c183cb16a78f4a11b9f66e"
    )


SMALL = RenderConfig(
    page_width=300, page_height=150, margin_x=8, margin_y=8, font_path=BUNDLED_SANS, font_size=11, line_height=14
)
SAMPLE = (
    "Find lively-okapi 7654321 here, naïve e\u0301 and (brackets).\n"
    "السلام عليكم 42 مُحَمَّدٌ world\nשלום 中 😀 \x00 fi\n\tcode = {'a': 1}"
)
RENDERERS = {
    "tiny": PageRenderer(replace(TINY, page_width=288, page_height=144)),
    "small": PageRenderer(SMALL),
    "glyph": PageRenderer(
        replace(
            SMALL,
            line_breaking="reportlab",
            alignment="JUSTIFY",
            newline_markup=" \\n ",
            auto_crop_width=True,
            page_height=90,
        )
    ),
    "wide": PageRenderer(replace(SMALL, horizontal_scale=1.3, alignment="CENTER")),
}


def draw(atlas, key, phase):
    """One glyph with its pen `phase` quarters into a pixel: (uint8 [h, w], left, top) relative to the pen."""
    images, lefts, top = fill_outlines(*atlas.outlines([key]), np.array([0]), np.array([phase / PHASES]))
    return images[0], int(lefts[0]), top


def naive_page(renderer, document, page, scale):
    """The definition of a page: one glyph after the other laid on a canvas (black on white)."""
    height, width = document.page_size(page, scale)
    ink = np.zeros((height, width), dtype=np.int64)
    document = document.typeset
    config, fonts = document.config, document.fonts
    down = document.geometry.pixels_per_point * scale
    atlas = GlyphAtlas(fonts, config.font_size * down, config.horizontal_scale)
    unit = config.font_size / fonts.units
    baselines = document.geometry.baseline_rows(*document.page_lines(page), scale)

    def lay(key, left, baseline, raised):
        nearest = 1e-4 if config.line_breaking == "reportlab" else 0.5
        quarter = int(np.floor(left * down * config.horizontal_scale * PHASES + nearest))
        image, x, y = draw(atlas, key, quarter % PHASES)
        row = baseline - int(np.floor(raised * down + 0.5)) + y
        column = quarter // PHASES + x
        for (down_by, right_by), value in np.ndenumerate(image):
            if 0 <= row + down_by < height and 0 <= column + right_by < width:
                ink[row + down_by, column + right_by] += value

    for line in range(*document.page_lines(page)):
        cells = document.cells(line, line + 1)
        baseline = int(baselines[line - document.page_lines(page)[0]])
        for at, left, key in zip(cells.index, cells.left, cells.keys, strict=True):
            if key != NO_GLYPH:
                lay(int(key), left, baseline, 0.0)
            for glyph in np.flatnonzero(document.layout.shaped.glyph_at == at):
                shaped = document.layout.shaped
                lay(int(shaped.keys[glyph]), left + shaped.right[glyph] * unit, baseline, shaped.up[glyph] * unit)
    return (255 - np.minimum(ink, 255)).astype(np.uint8)


@pytest.mark.parametrize("name", RENDERERS)
@pytest.mark.parametrize("scale", [1.0, 1.6])
def test_blitting_is_drawing_one_glyph_after_the_other(name, scale):
    renderer = RENDERERS[name]
    document = renderer.render(SAMPLE, scale)
    for page, drawn in enumerate(document.pages):
        assert np.array_equal(drawn, naive_page(renderer, document, page, scale))


@given(
    text=st.text(st.characters(exclude_categories=()), min_size=1, max_size=60), scale=st.sampled_from([0.5, 1.0, 2.3])
)
@settings(max_examples=40, deadline=None)
def test_any_text_is_drawn_within_its_promised_page_size(text, scale):
    for renderer in RENDERERS.values():
        try:
            typeset = renderer.typeset(text)
        except ValueError as error:
            assert "empty document" in str(error)
            return
        pages = list(renderer.draw_pages(typeset, scale))
        assert [page.shape for page in pages] == [typeset.page_size(page, scale) for page in range(typeset.num_pages)]
        assert all(page.dtype == np.uint8 and page.flags.c_contiguous for page in pages)


@given(
    st.lists(st.tuples(st.floats(-3, 14), st.floats(-3, 14)), min_size=3, max_size=8),
    st.booleans(),
    st.sampled_from([0, 0.25, 0.5]),
)
@settings(max_examples=60, deadline=None)
def test_coverage_is_the_area_inside_the_outline(points, with_curve_like_detail, shift):
    if with_curve_like_detail:
        points = [point for pair in zip(points, points[1:] + points[:1], strict=True) for point in _chords(*pair)]
    ring = np.array(points)
    segments = np.concatenate([ring, np.roll(ring, -1, axis=0)], axis=1)
    box = np.array([[20.0, 0, 20, 9], [20, 9, 25, 5], [25, 5, 20, 0]])
    edges, outline = np.concatenate([box, segments]).T, np.repeat([0, 1], [len(box), len(segments)])
    images, lefts, top = fill_outlines(edges, outline, np.array([0, 1, 1]), np.array([0, 0, shift]))
    image, left = images[2], lefts[2]
    segments = segments + np.array([shift, 0, shift, 0])
    samples = 16
    height, width = image.shape
    x = left + (np.arange(width * samples) + 0.5) / samples
    y = top + (np.arange(height * samples) + 0.5) / samples
    winding = np.zeros((len(y), len(x)))
    for x0, y0, x1, y1 in segments:
        if y0 == y1:
            continue
        crosses = (y >= min(y0, y1)) & (y < max(y0, y1))
        at = x0 + (y - y0) / (y1 - y0) * (x1 - x0)
        winding += np.where(crosses[:, None] & (x[None, :] > at[:, None]), np.sign(y1 - y0), 0)
    mean_winding = winding.reshape(height, samples, width, samples).mean(axis=(1, 3))
    expected = np.minimum(np.abs(mean_winding), 1) * 255
    # An edge that runs between two rows of samples is missed by up to one row.
    assert np.abs(image - expected).mean() < 255 / samples
    assert np.abs(image - expected).max() < 4 * 255 / samples


def _chords(start, end):
    return [start, (0.6 * start[0] + 0.4 * end[0] + 0.3, 0.6 * start[1] + 0.4 * end[1] - 0.2)]


@pytest.mark.parametrize("character", list("aegSW&8%@é"))
def test_glyphs_look_as_freetype_draws_them_large(character):
    size, factor = 10, 32
    config = RenderConfig(font_size=size, line_height=12)
    chain = FontChain(config)
    atlas = GlyphAtlas(chain, size)
    image, left, top = draw(atlas, chain.nominal(ord(character))[0], 0)
    font = ImageFont.truetype(BUNDLED_MONO, size * factor, layout_engine=ImageFont.Layout.BASIC)
    mask, offset = font.getmask2(character, mode="L", anchor="ls")
    large = np.zeros((24 * factor, 24 * factor), dtype=np.float64)
    x, y = 4 * factor + offset[0], 16 * factor + offset[1]
    large[y : y + mask.size[1], x : x + mask.size[0]] = np.array(mask, dtype=np.float64).reshape(mask.size[::-1])
    expected = large.reshape(24, factor, 24, factor).mean(axis=(1, 3))
    found = np.zeros((24, 24))
    found[16 + top : 16 + top + image.shape[0], 4 + left : 4 + left + image.shape[1]] = image
    assert np.abs(found - expected).max() < 24
    assert np.abs(found - expected)[expected > 0].mean() < 5


@pytest.mark.parametrize("scale", [1.0, 2.0, 2.7])
@pytest.mark.parametrize(
    "word", ["okapi", "7654321", "(brackets)", "مُحَمَّدٌ", "عليكم", "שלום", "😀", "e\u0301", "\x00", "中"]
)
def test_boxes_lie_on_the_ink_of_their_words(word, scale):
    renderer = RENDERERS["small"]
    document = renderer.render(SAMPLE, scale)
    start = SAMPLE.index(word)
    boxes = document.boxes(start, start + len(word))
    assert len(boxes) == 1
    page, (left, top, right, bottom) = boxes[0]
    # Everything else is blanked out by what this word's own glyphs draw.
    alone = np.zeros_like(document.pages[page], dtype=np.int64)
    typeset = document.typeset
    glyphs = renderer._glyphs(typeset, *typeset.page_lines(page), scale)
    atlas = renderer._atlas(typeset.fonts, typeset.geometry.pixels_per_point * scale)
    for row, column, key, owner in zip(glyphs.rows, glyphs.quarters, glyphs.keys, glyphs.index, strict=True):
        if start <= owner < start + len(word):
            image, x, y = draw(atlas, int(key), int(column) % PHASES)
            x, y = int(column) // PHASES + x, int(row) + y
            alone[y : y + image.shape[0], x : x + image.shape[1]] += image
    inked_rows, inked_columns = np.nonzero(alone > 40)
    assert inked_columns.min() >= left - 1.5 * scale
    assert inked_columns.max() + 1 <= right + 1.5 * scale
    assert inked_rows.min() >= top - 1.5 * scale
    assert inked_rows.max() + 1 <= bottom + 1.5 * scale
    assert inked_columns.max() - inked_columns.min() > (right - left) * 0.6
    dark = 255 - document.pages[page].astype(np.int64)
    assert np.all(dark[alone > 40] >= np.minimum(alone, 255)[alone > 40])


def test_every_word_of_a_grid_page_has_ink_in_its_box_and_none_when_it_is_blank():
    renderer = PageRenderer(TINY)
    text = "The quick brown fox jumps over the lazy dog\n" * 30
    document = renderer.render(text)
    for found in re.finditer(r"\w+", text):
        [(page, (left, top, right, bottom))] = document.boxes(*found.span())
        inside = document.pages[page][round(top) : round(bottom), round(left) : round(right)]
        assert inside.shape == (12, 6 * len(found.group()))
        assert (inside < 128).sum() >= 4 * len(found.group())
    for found in re.finditer(" ", text):
        for page, (left, top, right, bottom) in document.boxes(*found.span()):
            assert (document.pages[page][round(top) : round(bottom), round(left) : round(right)] > 200).all()


def test_pixels_of_glyphs_configuration_never_change():
    config = RenderConfig.from_glyph(
        {"page-size": "595,842", "margin-x": 10, "margin-y": 10, "alignment": "LEFT", "font-path": BUNDLED_SANS}
    )
    document = PageRenderer(config).render(GUARD_TEXT)
    assert digest(document.pages) == "0ada4d6e8b26fe1b1b8c594db79c479caf36b216c9d5c3b3162298a226127854"


def test_glyphs_renderer_stretches_the_finished_picture():
    config = replace(SMALL, line_breaking="reportlab", horizontal_scale=0.8)
    stretched, upright = (PageRenderer(c).render(SAMPLE) for c in (config, replace(config, horizontal_scale=1.0)))
    expected = np.asarray(Image.fromarray(upright.pages[0]).resize((240, 150)))
    assert np.array_equal(stretched.pages[0], expected)
    [(_, box)], [(_, wide)] = stretched.boxes(5, 17), upright.boxes(5, 17)
    assert box == pytest.approx((wide[0] * 0.8, wide[1], wide[2] * 0.8, wide[3]))


def test_the_same_text_gives_the_same_bytes_whatever_was_drawn_before():
    fresh = PageRenderer(SMALL).render(SAMPLE, 1.3)
    used = PageRenderer(SMALL)
    for text, scale in (("other text 中", 1.3), (SAMPLE[::-1], 0.7), ("xyz", 3.0)):
        used.render(text, scale)
    travelled = pickle.loads(pickle.dumps(used))
    assert digest(fresh.pages) == digest(used.render(SAMPLE, 1.3).pages) == digest(travelled.render(SAMPLE, 1.3).pages)


def test_bytes_do_not_depend_on_how_much_is_done_at_once(monkeypatch):
    expected = {scale: digest(PageRenderer(SMALL).render(SAMPLE * 9, scale).pages) for scale in (1.0, 2.3)}
    for name, value in (("_GLYPHS_AT_ONCE", 3), ("_CELLS_AT_ONCE", 1), ("_TILES_AT_ONCE", 7)):
        monkeypatch.setattr(glyph_atlas, name, value)
    monkeypatch.setattr(rasterizing, "_PAGES_AT_ONCE", 2)
    for scale, pages in expected.items():
        document = PageRenderer(SMALL).render(SAMPLE * 9, scale)
        assert document.num_pages > 2
        assert digest(document.pages) == pages


def test_pages_come_one_at_a_time():
    renderer = PageRenderer(TINY)
    typeset = renderer.typeset("word " * 50_000)
    pages = renderer.draw_pages(typeset)
    assert isinstance(pages, Iterator)
    assert next(pages).shape == (756, 576)
    assert np.array_equal(renderer.draw_page(typeset, 0), renderer.render("word " * 50_000).pages[0])


def test_a_scaled_page_shows_the_same_layout():
    renderer = PageRenderer(SMALL)
    one, two = renderer.render(SAMPLE), renderer.render(SAMPLE, 2)
    assert list(one.lines) == list(two.lines)
    assert two.scale == 2
    assert two.pages[0].shape == two.page_size(0) == (300, 600)
    assert two.page_size(0, 1.0) == one.page_size(0)
    assert two.boxes(5, 17) == one.boxes(5, 17, scale=2)
    [(page, box)] = two.boxes(5, 17)
    assert two.spans_in_box(page, box) == [(5, 17)]
    small = np.array(Image.fromarray(two.pages[0]).reduce(2)).astype(float)
    assert np.abs(small - one.pages[0]).mean() < 8


def test_pages_are_grey_when_every_colour_is():
    for change, grey in (
        ({"font_color": "#202020", "page_bg_color": "#EEEEEE", "para_bg_color": "#EEEEEE"}, True),
        ({"font_color": "#000080"}, False),
        ({"page_bg_color": "#FFFFF0"}, False),
        ({"newline_markup": "¶", "newline_color": "#FF0000"}, False),
    ):
        page = PageRenderer(replace(SMALL, **change)).render("word\nword").pages[0]
        assert page.shape == ((150, 300) if grey else (150, 300, 3))


def test_colours_are_those_of_the_config():
    config = replace(
        SMALL,
        font_color="#0000FF",
        page_bg_color="#FFFF00",
        para_bg_color="#00FF00",
        border_color="#FF00FF",
        border_width=2,
        border_padding=1,
        newline_markup="■",
        newline_color="#FF0000",
    )
    page = PageRenderer(config).render("■■\n■").pages[0]
    colors = {tuple(color) for color in page.reshape(-1, 3).tolist()}
    assert {(0, 0, 255), (255, 255, 0), (0, 255, 0), (255, 0, 255), (255, 0, 0)} <= colors
    assert tuple(page[0, 0]) == (255, 255, 0)
    # The frame's stroke of 2 pixels runs along the block's edge, 1 pixel above the text at 8.
    assert [tuple(page[row, 100]) for row in (5, 6, 7)] == [(255, 255, 0), (255, 0, 255), (255, 0, 255)]
    assert tuple(page[8, 290]) == (0, 255, 0)


def test_only_the_newline_marks_take_their_colour():
    config = replace(SMALL, newline_markup=" \\n ", newline_color="#FF0000")
    document = PageRenderer(config).render("ab\ncd\nef")
    page = document.pages[0].astype(int)
    red = (page[:, :, 0] - page[:, :, 1]) > 100
    for start in (2, 5):
        [(_, (left, top, right, bottom))] = document.boxes(start, start + 1)
        area = np.zeros_like(red)
        area[round(top) : round(bottom), round(left) : round(right)] = True
        assert red[area].any()
        red &= ~area
    assert not red.any()


def test_an_undrawable_character_is_a_visible_hollow_box():
    renderer = PageRenderer(TINY)
    document = renderer.render("a\x01b", 4)
    [(page, (left, top, right, bottom))] = document.boxes(1, 2)
    cell = document.pages[page][round(top) : round(bottom), round(left) : round(right)]
    assert (cell < 64).sum() > 80
    assert cell[cell.shape[0] // 2, cell.shape[1] // 2] == 255
    assert MISSING_GLYPH not in document.typeset.fonts.keys[[ord("a"), ord("b")]]


def test_cropping_leaves_the_margin_after_the_ink():
    config = replace(SMALL, auto_crop_width=True, auto_crop_last_page=True, line_breaking="reportlab", frame_padding=6)
    for text in ("Wide words", "iiii\njjj\ny", "T"):
        page = PageRenderer(config).render(text).pages[0]
        rows, columns = np.nonzero(page < 250)
        assert page.shape == (rows.max() + 8, columns.max() + 1 + 8)


@pytest.mark.parametrize(("border_width", "stroke"), [(0, 0), (1, 1), (2, 2), (3, 3)])
def test_cropping_leaves_the_margin_after_the_frame(border_width, stroke):
    config = replace(
        SMALL,
        auto_crop_width=True,
        auto_crop_last_page=True,
        line_breaking="reportlab",
        border_color="#FF0000",
        border_width=border_width,
        border_padding=1,
        right_indent=40,
    )
    page = PageRenderer(config).render("word").pages[0]
    red = (page == (255, 0, 0)).all(axis=2)
    if not stroke:
        assert not red.any()
        return
    rows, columns = np.nonzero(red)
    assert page.shape[:2] == (rows.max() + 8, columns.max() + 1 + 8)
    assert red[:, page.shape[1] // 2].sum() == red[page.shape[0] // 2].sum() == 2 * stroke


def test_marked_boxes_are_seen_and_the_text_in_them_can_be_read():
    document = PageRenderer(SMALL).render(SAMPLE, 2)
    boxes = [box for _, box in document.boxes(5, 25)]
    picture = mark_boxes(document.pages[0], boxes)
    assert picture.mode == "RGB"
    assert picture.size == document.pages[0].shape[::-1]
    pixels = np.array(picture).astype(int)
    left, top = (math.floor(value) for value in boxes[0][:2])
    right, bottom = (math.ceil(value) for value in boxes[0][2:])
    inside, before = pixels[top:bottom, left:right], document.pages[0][top:bottom, left:right].astype(int)
    assert np.all(inside[before < 40] < 60), "ink stays dark"
    assert np.all(inside[before == 255].sum(axis=1) < 3 * 255), "paper is tinted"
    assert (pixels[top - 1, left:right, 0] - pixels[top - 1, left:right, 1] > 100).all(), "a red line runs above"
    untouched = np.ones(picture.size[::-1], dtype=bool)
    untouched[top - 1 : bottom + 1, left - 1 : right + 1] = False
    assert np.array_equal(pixels[untouched], np.repeat(document.pages[0][untouched][:, None], 3, axis=1))
    colour = mark_boxes(np.zeros((20, 30, 3), dtype=np.uint8), [(0, 0, 30, 20)])
    assert colour.getpixel((0, 0)) != (0, 0, 0)


def test_boxes_off_the_page_and_other_arrays_are_refused():
    page = np.full((20, 30), 255, dtype=np.uint8)
    with pytest.raises(ValueError, match="does not lie on the page of 30 x 20 pixels"):
        mark_boxes(page, [(40, 0, 50, 10)])
    with pytest.raises(ValueError, match="a page is a uint8 array"):
        mark_boxes(page.astype(float), [])


def test_mistakes_are_refused_before_anything_is_drawn():
    renderer = PageRenderer(SMALL)
    typeset = renderer.typeset("word")
    for scale in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=re.escape(f"scale={scale!r}")):
            renderer.render(typeset, scale)
    with pytest.raises(ValueError, match="scale=1000 makes a page of 300000 x 150000 pixels"):
        renderer.render(typeset, 1000)
    with pytest.raises(ValueError, match="another RenderConfig"):
        PageRenderer(TINY).render(typeset)
    with pytest.raises(ValueError, match="empty document"):
        renderer.render(" \n")
    assert Typesetter(SMALL).typeset("word").num_pages == renderer.render("word").num_pages == 1


def test_a_page_that_is_a_strip_is_shown_as_columns_and_nothing_of_it_is_lost() -> None:
    shades = np.arange(1, 22, dtype=np.uint8).repeat(48)[: 20 * 48 + 12]  # 21 cells, the last of them a quarter
    sheet = unroll_strip(Image.fromarray(np.repeat(shades[:, None], 48, axis=1)).convert("RGB"))
    assert sheet.width < sheet.height < 4 * sheet.width
    columns = [
        np.asarray(sheet.resize((sheet.width // 2, sheet.height // 2)))[:, left + 24, 0] for left in (0, 60, 120, 180)
    ]
    read = [int(shade) for column in columns for shade in column[24::48]]
    assert [shade for shade in read if shade != 255][:20] == list(range(1, 21))


@pytest.mark.parametrize("cell", [0, 3, 4, 5, 9, 10, 20])  # the first and last ones of columns, and one between
def test_an_outline_stays_in_its_own_column_of_a_strip(cell: int) -> None:
    page = np.full((21 * 48, 48), 255, dtype=np.uint8)
    sheet = np.asarray(unroll_strip(mark_boxes(page, [(0, cell * 48, 48, cell * 48 + 48)])))
    red = (sheet[:, :, 0] > 128) & (sheet[:, :, 1] < 128)
    rows, columns = np.nonzero(red)
    assert len({left // 120 for left in columns.tolist()}) == 1  # twice 48 pixels and a gap of 12
    assert all(edge.max() - edge.min() > 80 for edge in (rows, columns))  # and is closed on all sides


def test_a_page_of_usual_shape_is_shown_as_it_is() -> None:
    page = Image.new("RGB", (100, 400))
    assert unroll_strip(page) is page
