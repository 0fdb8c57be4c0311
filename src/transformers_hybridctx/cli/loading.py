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
from typing import TYPE_CHECKING, Any

from ..bundled_checkpoint import BUNDLED_CHECKPOINT
from .options import FileOptions, given, is_reading

if TYPE_CHECKING:
    from ..pipeline_long_doc_qa import LongDocQAPipeline
    from ..processing_hybridctx import HybridCtxProcessor
    from .quick_planner import QuickPlanner

_ADDRESS = re.compile(r"\w[\w+.-]*://")
_AS_IT_IS = FileOptions()


def read_files(documents: Sequence[str], options: FileOptions = _AS_IT_IS) -> Any:
    """The text of a file, its pages as pictures, or both; of several files and folders as one document."""
    from ..documents.recognition import tesseract
    from ..documents.several_files import read_documents

    sources: list[Any] = [sys.stdin.buffer if name == "-" else _as_source(name, options) for name in documents]
    if documents.count("-") > 1:
        raise ValueError("- stands for standard input, which can be read once only")
    chosen = given(pages=options.pages, password=options.password, encoding=options.encoding, layout=options.layout)
    if options.ocr is not None:
        chosen["ocr"] = tesseract(options.ocr)
    return read_documents(sources, may_fetch=options.fetch, **chosen)


def _as_source(name: str, options: FileOptions) -> str | Path:
    """What a word of the command line names: a file, even where it looks like something else."""
    if _ADDRESS.match(name):
        if not options.fetch and name.startswith("http"):
            raise ValueError(f"{name} is an address, and nothing is fetched unasked: give --fetch, or download it")
        return name
    return name if name.startswith("file:") else Path(name)


def read_files_or_reading(documents: Sequence[str], options: FileOptions, font: Path | None = None) -> Any:
    """As `read_files`; a file that `hybridctx read` wrote is a `DocumentCache`, which no option changes."""
    if not is_reading(documents):
        return read_files(documents, options)
    for name, value in {**vars(options), "font": font}.items():
        if value:
            raise ValueError(
                f"--{name} {value} comes too late: {documents[0]} has been read; read the document again with it"
            )
    from ..caching.document_cache import DocumentCache

    return DocumentCache.load(documents[0])


def read_prose(path: Path) -> str:
    """The text of a file, in which needles can be hidden."""
    text = read_files([str(path)])
    if not isinstance(text, str):
        raise ValueError(f"{path} holds pictures; needles are hidden in text")
    return text


def load_pipeline(model: str | None, font: Path | None = None) -> LongDocQAPipeline:
    from transformers import pipeline
    from transformers.utils import logging

    from .. import modeling_hybridctx, pipeline_long_doc_qa  # noqa: F401  (each registers its classes)

    logging.disable_progress_bar()  # of the weights
    pipe = pipeline("long-doc-qa", model=_checked(model))
    if sys.stderr.isatty():
        logging.enable_progress_bar()
    _add_font(pipe.processor, font)
    return pipe


def load_planner(model: str | None, font: Path | None = None) -> HybridCtxProcessor | QuickPlanner:
    """What lays out and plans: of a folder without torch; what is on the Hub needs a processor, which fetches it."""
    from .quick_planner import QuickPlanner

    folder = Path(_checked(model) or BUNDLED_CHECKPOINT)
    if not QuickPlanner.fits(folder):
        return load_processor(model, font)
    planner = QuickPlanner.from_folder(folder)
    _add_font(planner, font)
    return planner


def load_processor(model: str | None, font: Path | None = None) -> HybridCtxProcessor:
    """The processor of a checkpoint, without its model."""
    from ..processing_hybridctx import HybridCtxProcessor

    processor = HybridCtxProcessor.from_pretrained(_checked(model) or BUNDLED_CHECKPOINT)
    _add_font(processor, font)
    return processor


def _checked(model: str | None) -> str | None:
    """The model's name, where it is not a path to nowhere that the Hub would be asked for in vain."""
    if model is not None and model.startswith(("/", "./", "../", "~")):
        model = str(Path(model).expanduser())
        if not Path(model).is_dir():
            raise FileNotFoundError(f"--model {model}: there is no such folder")
    return model


def _add_font(processor: HybridCtxProcessor | QuickPlanner, font: Path | None) -> None:
    """Let the processor draw with one more font what its own ones lack: its typeface is part of the model."""
    if font is None:
        return
    if not font.is_file():
        raise FileNotFoundError(f"--font {font}: there is no such file")
    config = processor.render_config
    processor.render_config = replace(config, fallback_font_paths=(*config.fallback_font_paths, str(font)))
