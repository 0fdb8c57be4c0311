# SPDX-License-Identifier: Apache-2.0
"""Documents, processors and pipelines, loaded when a command needs them.

Torch and transformers take seconds to import: nothing here does it before a function is called.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..bundled_checkpoint import BUNDLED_CHECKPOINT
from ..checkpoint_names import name_that_can_be_had
from .console import messages_console
from .options import SYSTEM_FONTS, FileOptions, given, is_a_reading, is_reading

if TYPE_CHECKING:
    from ..documents.files import Kind
    from ..pipeline_long_doc_qa import LongDocQAPipeline
    from ..processing_hybridctx import HybridCtxProcessor
    from ..rendering.settings import RenderConfig
    from .quick_planner import QuickPlanner

_ADDRESS = re.compile(r"\w[\w+.-]*://")
_AS_IT_IS = FileOptions()
_APPLIES_TO: dict[str, tuple[tuple[Kind, ...], str]] = {
    "password": (("pdf",), "PDFs"),
    "layout": (("pdf",), "PDFs"),
    "ocr": (("pdf", "picture"), "PDFs and pictures"),
    "encoding": (("text",), "files of plain text"),
}
"""Which kinds of files heed an option, in words too."""
_AS_IT_IS_ANYWAY = {"layout": "typeset"}
_PDF_MARK = len(b"%PDF-")


def read_files(documents: Sequence[str], options: FileOptions = _AS_IT_IS) -> Any:
    """The text of a file, its pages as pictures, or both; of several files and folders as one document."""
    check_options_apply(documents, options)
    return read_checked_files(documents, options)


def read_checked_files(documents: Sequence[str], options: FileOptions) -> Any:
    """As `read_files`, where it was seen to that the options apply to some document."""
    from ..documents.recognition import tesseract
    from ..documents.several_files import read_documents

    for name in filter(is_a_reading, documents):
        raise ValueError(
            f"{name} is what `hybridctx read` wrote, and here documents themselves are read: name the files that it was "
            "read from; `ask`, `chat` and `plan` take what was read, one at a time"
        )
    sources = [_as_source(name, options) for name in documents]
    if documents.count("-") > 1:
        raise ValueError("- stands for standard input, which can be read once only")
    chosen = given(pages=options.pages, password=options.password, encoding=options.encoding, layout=options.layout)
    if options.ocr is not None:
        chosen["ocr"] = tesseract(options.ocr)
    return read_documents(sources, may_fetch=options.fetch, **chosen)


def check_options_apply(documents: Sequence[str], options: FileOptions) -> None:
    """
    Refuse what no document that is given can heed, where it is known what each is: not of folders and addresses.

    Raises:
        ValueError: such an option.
    """
    chosen = [name for name in _APPLIES_TO if getattr(options, name) not in (None, _AS_IT_IS_ANYWAY.get(name))]
    kinds = [_kind_of(_as_source(name, options)) for name in documents] if chosen else []
    for name in chosen:
        meant, words = _APPLIES_TO[name]
        if not any(kind is None or kind in meant for kind in kinds):
            told = f"{documents[0]} is none" if len(documents) == 1 else f"none of these {len(documents):,} is one"
            raise ValueError(f"--{name} is for {words}, and {told}: leave it out")


def _kind_of(source: str | Path | BinaryIO) -> Kind | None:
    """As what something is read; None where that is not known before."""
    from ..documents.fetching import is_web_address
    from ..documents.files import kind_of

    if not isinstance(source, (str, Path)):
        start = source.peek(_PDF_MARK) if hasattr(source, "peek") else b""
        return kind_of("-", start) if len(start) >= _PDF_MARK else None
    if is_web_address(source) or not (source_path := Path(source).expanduser()).is_file():
        return None
    return kind_of(source_path)


def _as_source(name: str, options: FileOptions) -> str | Path | BinaryIO:
    """What a word of the command line names: a file, even where it looks like something else."""
    if name == "-":
        return sys.stdin.buffer
    if _ADDRESS.match(name):
        if not options.fetch and name.startswith("http"):
            raise ValueError(f"{name} is an address, and nothing is fetched unasked: give --fetch, or download it")
        return name
    return name if name.startswith("file:") else Path(name)


def read_files_or_reading(documents: Sequence[str], options: FileOptions) -> Any:
    """As `read_files`; a file that `hybridctx read` wrote is a `DocumentCache`, which no option of files changes."""
    if not is_reading(documents):
        return read_files(documents, options)
    for name, value in vars(options).items():
        if value:
            shown = "" if name == "password" else f" {value}"
            raise ValueError(
                f"--{name}{shown} comes too late: {documents[0]} has been read; read the document again with it"
            )
    from ..caching.document_cache import DocumentCache

    return DocumentCache.load(documents[0])


def read_prose(path: Path) -> str:
    """The text of a file, in which needles can be hidden."""
    text = read_files([str(path)])
    if not isinstance(text, str):
        raise ValueError(f"{path} holds pictures; needles are hidden in text")
    return text


def load_pipeline(model: str | None, font: str | None = None, content: Any = None) -> LongDocQAPipeline:
    """The pipeline of a checkpoint; of a font and a document, see `with_font`."""
    name = checked_model(model)
    from transformers import pipeline
    from transformers.utils import logging

    from .. import modeling_hybridctx, pipeline_long_doc_qa  # noqa: F401  (each registers its classes)

    logging.disable_progress_bar()  # of the weights
    pipe = pipeline("long-doc-qa", model=name)
    if sys.stderr.isatty():
        logging.enable_progress_bar()
    pipe.processor.render_config = with_font(pipe.processor.render_config, font, content)
    return pipe


def load_planner(model: str | None, font: str | None = None, content: Any = None) -> HybridCtxProcessor | QuickPlanner:
    """What lays out and plans: of a folder without torch; what is on the Hub needs a processor, which fetches it."""
    from .quick_planner import QuickPlanner

    folder = Path(checked_model(model) or BUNDLED_CHECKPOINT)
    if not QuickPlanner.fits(folder):
        return load_processor(model, font, content)
    planner = QuickPlanner.from_folder(folder)
    planner.render_config = with_font(planner.render_config, font, content)
    return planner


def load_processor(model: str | None, font: str | None = None, content: Any = None) -> HybridCtxProcessor:
    """The processor of a checkpoint, without its model."""
    from ..processing_hybridctx import HybridCtxProcessor

    processor = HybridCtxProcessor.from_pretrained(checked_model(model) or BUNDLED_CHECKPOINT)
    processor.render_config = with_font(processor.render_config, font, content)
    return processor


def checked_model(model: str | None) -> str | None:
    """What `--model` names, where that can be had: a folder, or an id that the Hub knows."""
    return None if model is None else name_that_can_be_had(model, "--model")


def with_font(config: RenderConfig, font: str | None, content: Any) -> RenderConfig:
    """
    The config with one more font for what its own ones lack: its typeface is part of the model.

    Args:
        font: a file, or `SYSTEM_FONTS` for those of this machine that a document needs; which ones is printed to stderr.
        content: the document, as `read_files` gives it; None where documents come later: fonts for all characters that
            this machine has fonts for are then taken, so that all documents of a process are set alike.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the machine cannot tell its fonts.
    """
    from ..rendering.font_files import file_and_face, with_face
    from ..rendering.system_fonts import all_characters, with_system_fonts

    if font is None:
        return config
    if font == SYSTEM_FONTS:
        text = content if isinstance(content, str) else getattr(content, "text", None)
        config, found = with_system_fonts(config, all_characters() if text is None else text)
        named = [f"{one.family} ({one.path}) for {one.characters:,} characters" for one in found]
        messages_console().print(f"fonts of this machine: {'; '.join(named) or 'none is needed, or none helps'}")
        return config
    file, face = file_and_face(font)
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"--font {font}: there is no such file")
    return replace(config, fallback_font_paths=(*config.fallback_font_paths, with_face(str(path), face)))
