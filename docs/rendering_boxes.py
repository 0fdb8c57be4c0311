# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of this folder: pages with the boxes of given words on them.

    python docs/rendering_boxes.py --text examples/some_text.txt --words word other [--cjk-font font.ttf]

Writes rendering_boxes.png (two columns of prose) and rendering_boxes_scripts.png (right-to-left and combining scripts,
and Chinese if a font for it is given), each box taken from `RenderedDocument.boxes` and nothing else.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from transformers_hybridctx.rendering.rasterizing import PageRenderer, mark_boxes
from transformers_hybridctx.rendering.settings import BUNDLED_SANS, RenderConfig
from transformers_hybridctx.rendering.styles import patch_aligned_config

FOLDER = Path(__file__).parent
SCRIPTS = (
    "The room number is 42, and naïve e\u0301tudes are kept there.\n"
    "السلام عليكم، رقم الغرفة 42 في المكتب الثاني، والرقم السري هو 7654321.\n"
    "שלום עולם, המספר הסודי הוא 7654321 (בערך) ולא 1234567.\n"
    "Mixed: the word مكتب means office, and שלום means peace; both run right to left.\n"
    "密码是 7654321，请在图书馆的二楼查找《红楼梦》。\n"
    "A tab:\there, a control character: \x01, an emoji: 😀.\n"
)
SCRIPT_WORDS = ["42", "الغرفة", "7654321", "עולם", "مكتب", "שלום", "图书馆", "红楼梦", "e\u0301tudes", "\x01", "😀"]


def draw(config: RenderConfig, text: str, words: list[str], scale: float, path: Path, page: int = 0) -> None:
    document = PageRenderer(config).render(text, scale)
    pattern = "|".join(re.escape(word) for word in words)
    spans = [found.span() for found in re.finditer(pattern, text)]
    boxes = [box for span in spans for at, box in document.boxes(*span) if at == page]
    mark_boxes(document.pages[page], boxes).save(path, optimize=True)
    print(f"{path.name}: {len(boxes)} boxes on page {page + 1} of {document.num_pages}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--words", nargs="+", required=True)
    parser.add_argument("--cjk-font", type=Path)
    options = parser.parse_args()
    columns = patch_aligned_config(patches_wide=19, patches_high=12, margin_patches=1, columns=2, lines_per_patch=3)
    draw(columns, options.text.read_text(encoding="utf-8"), options.words, 1.5, FOLDER / "rendering_boxes.png", 1)
    fallback = (str(options.cjk_font),) if options.cjk_font else ()
    scripts = RenderConfig(
        page_width=420,
        page_height=150,
        font_path=BUNDLED_SANS,
        fallback_font_paths=fallback,
        font_size=10,
        line_height=16,
        auto_crop_last_page=True,
    )
    draw(scripts, SCRIPTS, SCRIPT_WORDS, 2, FOLDER / "rendering_boxes_scripts.png")


if __name__ == "__main__":
    main()
