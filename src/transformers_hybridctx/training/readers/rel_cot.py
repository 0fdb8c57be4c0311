# SPDX-License-Identifier: Apache-2.0
"""REL-CoT (https://www.modelscope.cn/datasets/zhongfangzhi/REL-CoT, of FocusVTC, arXiv 2609.36651): questions about
documents, with reasoning that names pages and boxes.

The boxes are of pages in a layout of its own. Here a document is typeset anew, and shown in any style, so they are taken
out of the reasoning; what it says remains.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..records import TrainingRecord, TrainingTurn, UnusableRow

_BOX = re.compile(r"[ \t]*(?:\bPage \d+\s*)?<\|box_start\|>.*?<\|box_end\|>", re.DOTALL)
_SAID = re.compile(r"(?:<think>(?P<reasoning>.*?)</think>)?\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL)
_MANIFESTS = ("train_72dpi.json", "train.jsonl")


def rows_of_folder(given: Path) -> Iterator[dict[str, Any]]:
    """
    Rows of the unpacked data set, each with its document as `text` and its `conversations` as a list.

    A row of the manifest, which is JSON lines: `{"id", "image_dpi72" or "image", "text_path", "conversations"}`;
    conversations are a list or the path of one. Paths keep the absolute prefix of whoever made them: what counts is what
    stands behind `text/` and `conversations/`.

    Args:
        given: the folder, or a manifest in it.

    Raises:
        FileNotFoundError: a folder without a manifest; told by the call.
    """
    found = [given] if given.is_file() else [given / name for name in _MANIFESTS if (given / name).is_file()]
    if not found:
        raise FileNotFoundError(f"data: there is no {' or '.join(_MANIFESTS)} in {given}")
    return _rows_of_manifest(found[0])


def _rows_of_manifest(manifest: Path) -> Iterator[dict[str, Any]]:
    with manifest.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.strip():
                continue
            row = json.loads(line)
            text = _file(manifest.parent, row["text_path"], "text")
            said = row["conversations"]
            if isinstance(said, str):
                named = _file(manifest.parent, said, "conversations")
                said = json.loads(named.read_text(encoding="utf-8")) if named.is_file() else None
            read = text.read_text(encoding="utf-8") if text.is_file() else None
            yield {"id": row["id"], "text": read, "conversations": said}


def _file(folder: Path, path: str, kind: str) -> Path:
    """Where a file of a row is in this folder."""
    parts = Path(path).parts
    if kind in parts:
        return folder.joinpath(*parts[len(parts) - 1 - parts[::-1].index(kind) :])
    return folder / path


def record_of(row: dict[str, Any]) -> TrainingRecord:
    """
    Row: `{"id", "text", "conversations": [{"from": "human", "value": "<image>…question"}, {"from": "gpt", "value":
    "<think>…</think><answer>…</answer>"}]}`.
    """
    if row["text"] is None or row["conversations"] is None:
        raise UnusableRow("a file that the row names is not there")
    roles = [one["from"] for one in row["conversations"]]
    if roles != ["human", "gpt"] * (len(roles) // 2) or not roles:
        raise UnusableRow("conversations that do not take turns")
    said = [one["value"] for one in row["conversations"]]
    turns = []
    for question, answer in zip(said[::2], said[1::2]):
        match = _SAID.fullmatch(answer.strip())
        if match is None:
            raise UnusableRow("an answer without <answer>")
        reasoning = _BOX.sub("", match["reasoning"] or "").strip()
        words = match["answer"].strip()
        thought = f"<think>{reasoning}</think>{words}" if reasoning else words
        turns.append(TrainingTurn(question.replace("<image>", "").strip(), thought))
    return TrainingRecord(row["text"], tuple(turns), None, str(row["id"]))


__all__ = ["record_of", "rows_of_folder"]
