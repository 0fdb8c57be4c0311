# SPDX-License-Identifier: Apache-2.0
"""`hybridctx render`: a document's pages as pictures, and which characters stand where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .console import answers_console, messages_console, print_rows
from .errors import clear_errors
from .loading import load_processor, read_files, with_font
from .options import Encoding, Fetch, FileOptions, Files, Font, Ocr, PageLayout, Pages, Password
from .output_files import check_output, folder_written_whole

_LAYOUT = "layout.json"
_WHOLE_PIXELS = 0.02  # of a scale
_WRITTEN_HERE = r"page-\d{4,}\.png|layout\.json"


def render(
    document: Files,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the pages (PNG) and their map (layout.json); those of an earlier call are replaced.",
            show_default=False,
        ),
    ],
    config: Annotated[
        Path | None, typer.Option(help="Settings in Glyph's format (JSON); the bundled checkpoint's if not given.")
    ] = None,
    scale: Annotated[float, typer.Option(min=0.05, max=8.0, help="1 is the settings' own resolution.")] = 1.0,
    font: Font = None,
    pages: Pages = None,
    password: Password = None,
    encoding: Encoding = None,
    layout: PageLayout = None,
    ocr: Ocr = None,
    fetch: Fetch = False,
) -> None:
    """Draw a document's pages, and write which characters stand where.

    Pages count from 1 in layout.json, as in the names of the files; characters count from 0.
    """
    import numpy as np
    from PIL import Image
    from rich.progress import track

    from ..documents.joined_document import DocumentParts
    from ..documents.joined_document import laid_out as lay_out
    from ..prompting.pages import drawn_pages, scales_of_page
    from ..rendering.rasterizing import PageRenderer
    from ..rendering.settings import RenderConfig

    files = FileOptions(pages, password, encoding, layout, ocr, fetch)
    with clear_errors():
        check_output(out, "--out", is_folder=True)
        own_config = None if config is None else RenderConfig.from_glyph(config)
        content = read_files(document, files)
        render_config = own_config or load_processor(None).render_config
        render_config = with_font(render_config, font, content)
        renderer = PageRenderer(render_config)
        laid_out = lay_out(content, renderer.typeset) if isinstance(content, (str, DocumentParts)) else content
        sizes = [laid_out.page_size(page, scale) for page in range(laid_out.num_pages)]
        scales = [scales_of_page(laid_out, page, scale) for page in range(laid_out.num_pages)]
        with folder_written_whole(out, _WRITTEN_HERE, _LAYOUT) as unfinished:
            drawn = drawn_pages(laid_out, scale)
            console = messages_console()
            is_quiet = not console.is_terminal
            bar = track(drawn, "drawing", laid_out.num_pages, console=console, transient=True, disable=is_quiet)
            for number, page in enumerate(bar, start=1):
                Image.fromarray(np.asarray(page)).save(unfinished / f"page-{number:04}.png")
            layout_map = {
                "config": render_config.to_dict(),
                "scale": scale,
                "pages": sizes,
                "undrawable": [[position, f"U+{ord(character):04X}"] for position, character in laid_out.undrawable],
                "lines": [
                    {
                        "page": line.page + 1,
                        "start": line.start,
                        "end": line.end,
                        "box": [side * by for side, by in zip(line.box, scales[line.page] * 2, strict=True)],
                    }
                    for line in getattr(laid_out, "lines", ())
                ],
            }
            (unfinished / _LAYOUT).write_text(json.dumps(layout_map), encoding="utf-8")
    rows = [
        ("document", f"{len(laid_out.text):,} characters"),
        ("layout", getattr(laid_out, "layout_note", "")),
        ("pages", f"{laid_out.num_pages:,} at scale {scale:g}" + _kept(scales, scale)),
        ("undrawable", f"{len(laid_out.undrawable):,} characters, drawn as boxes and listed in {_LAYOUT}"),
        ("written to", str(out)),
    ]
    print_rows(answers_console(), [row for row in rows if row[1] and (row[0] != "undrawable" or laid_out.undrawable)])


def _kept(scales: Sequence[tuple[float, float]], scale: float) -> str:
    """Which pages were not drawn at the scale that was asked for: whole pixels make up for little."""
    kept = sum(abs(across / scale - 1) > _WHOLE_PIXELS for across, _ in scales)
    return f", but for {kept:,} that keep their own" if kept else ""
