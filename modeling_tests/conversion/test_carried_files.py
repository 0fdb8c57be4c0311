# SPDX-License-Identifier: Apache-2.0
"""Files that go along with weights; nothing is read from outside a source, and nothing late undoes the writing."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import leftovers, save_source
from transformers import PreTrainedTokenizerFast

from transformers_hybridctx.conversion import convert, export
from transformers_hybridctx.conversion.carried_files import carried_files, check_file, copy_files
from transformers_hybridctx.conversion.convert import convert_checkpoint
from transformers_hybridctx.conversion.export import export_checkpoint
from transformers_hybridctx.conversion.tensor_files import CheckpointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A source's small files, a secret beside it."""
    (tmp_path / "secret").write_text("secret")
    source = tmp_path / "folder"
    (source / "LICENSES" / "more").mkdir(parents=True)
    names = ("LICENSE", "Licence.txt", "NOTICE", "LICENSES/MIT.txt", "LICENSES/more/OFL.txt")
    for name in (*names, "generation_config.json"):
        (source / name).write_text(name)
    (source / "notes.md").write_text("stays")
    return source


def test_licences_go_along_whole_folders_of_them_too(folder: Path, tmp_path: Path) -> None:
    (folder / "LICENSE-LINK").symlink_to(folder / "LICENSE")
    copy_files(carried_files(folder), tmp_path / "target")
    copied = {
        str(path.relative_to(tmp_path / "target")) for path in (tmp_path / "target").rglob("*") if path.is_file()
    }
    names = {"LICENSE", "LICENSE-LINK", "Licence.txt", "NOTICE", "LICENSES/MIT.txt", "LICENSES/more/OFL.txt"}
    assert copied == names | {"generation_config.json"}
    assert (tmp_path / "target" / "LICENSES" / "more" / "OFL.txt").read_text() == "LICENSES/more/OFL.txt"


def link_out(folder: Path) -> None:
    (folder / "LICENSE-OTHER").symlink_to(folder.parent / "secret")


def link_out_of_a_licence_folder(folder: Path) -> None:
    (folder / "LICENSES" / "more" / "GPL.txt").symlink_to("../../../secret")


def folder_that_is_a_link(folder: Path) -> None:
    (folder / "NOTICES").symlink_to(folder.parent)


def link_to_nowhere(folder: Path) -> None:
    (folder / "NOTICE.txt").symlink_to("nowhere")


def link_in_a_circle(folder: Path) -> None:
    (folder / "NOTICE.txt").symlink_to("NOTICE.txt")


def folder_named_like_a_file(folder: Path) -> None:
    (folder / "video_preprocessor_config.json").mkdir()


def pipe_named_like_a_file(folder: Path) -> None:
    os.mkfifo(folder / "LICENSES" / "pipe")


def names_that_differ_in_case(folder: Path) -> None:
    (folder / "LICENSES" / "mit.TXT").write_text("another")


WRONG: dict[Callable[[Path], None], str] = {
    link_out: r"LICENSE-OTHER is a link to .*secret, out of the folder.*copy the file",
    link_out_of_a_licence_folder: r"GPL\.txt is a link to .*secret, out of the folder",
    folder_that_is_a_link: r"NOTICES is a link to .*, out of the folder",
    link_to_nowhere: r"NOTICE\.txt leads nowhere",
    link_in_a_circle: r"NOTICE\.txt leads nowhere",
    folder_named_like_a_file: r"video_preprocessor_config\.json is a folder, where a file is due",
    pipe_named_like_a_file: r"pipe is no regular file",
    names_that_differ_in_case: r"LICENSES/MIT\.txt and LICENSES/mit\.TXT, which are one file",
}


@pytest.mark.parametrize("damage", WRONG, ids=lambda damage: damage.__name__)
def test_what_cannot_go_along_is_named(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=WRONG[damage]):
        carried_files(folder)


def test_a_socket_is_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("NOTICE.sock")
        with pytest.raises(CheckpointError, match="no regular file"):
            carried_files(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("name", ["NOTICE", "LICENSES"])
def test_what_cannot_be_read_is_named(folder: Path, name: str) -> None:
    (folder / name).chmod(0)
    with pytest.raises(CheckpointError, match=f"{name} cannot be read"):
        carried_files(folder)


def test_the_hub_s_cache_holds_links_to_its_own_blobs_alone(tmp_path: Path) -> None:
    snapshot, blobs = (
        tmp_path / "models--org--name" / "snapshots" / ("0" * 40),
        tmp_path / "models--org--name" / "blobs",
    )
    for path in (snapshot, blobs):
        path.mkdir(parents=True)
    (blobs / "4f2").write_text("the licence")
    (snapshot / "LICENSE").symlink_to("../../blobs/4f2")
    assert carried_files(snapshot) == {"LICENSE": snapshot / "LICENSE"}
    (tmp_path / "secret").write_text("secret")
    (snapshot / "NOTICE").symlink_to("../../../secret")
    with pytest.raises(CheckpointError, match="out of the folder"):
        check_file(snapshot / "NOTICE", snapshot)


@pytest.mark.parametrize("way", ["convert", "export"])
def test_nothing_is_written_where_a_file_lies_elsewhere(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    source, run = tmp_path / "source", convert_checkpoint if way == "convert" else export_checkpoint
    save_source(source, tokenizer)
    if way == "export":
        convert_checkpoint(str(source), tmp_path / "checkpoint")
        source = tmp_path / "checkpoint"
    for module in (convert, export):
        monkeypatch.setattr(module, "write_shards", lambda *arguments: pytest.fail("weights were written"))
    (source / "fonts").mkdir(exist_ok=True)
    shard = next(source.glob("model-00002-of-*"))
    for file in (source / "LICENSE", source / "tokenizer.json", source / "fonts" / "a.ttf", shard):
        elsewhere = tmp_path / "elsewhere" / file.name
        elsewhere.parent.mkdir(exist_ok=True)
        file.rename(elsewhere) if file.exists() else elsewhere.write_text("elsewhere")
        file.symlink_to(elsewhere)
        with pytest.raises(CheckpointError, match=rf"{file.name} is a link to .*elsewhere.*, out of the folder"):
            run(str(source), tmp_path / "target")
        file.unlink()
        elsewhere.rename(file)
    assert leftovers(tmp_path, "source", "checkpoint", "elsewhere") == []


def test_what_goes_wrong_with_small_files_goes_wrong_before_the_weights(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise CheckpointError("no card")

    save_source(tmp_path / "source", tokenizer)
    (tmp_path / "source" / "README.md").write_text("---\nlanguage: [unclosed\n---\n")  # is no reason to stop
    convert_checkpoint(str(tmp_path / "source"), tmp_path / "checkpoint")
    monkeypatch.setattr(convert, "converted_card", fail)
    monkeypatch.setattr(export, "exported_card", fail)
    for module in (convert, export):
        monkeypatch.setattr(module, "write_shards", lambda *arguments: pytest.fail("weights were written"))
    for run, source in ((convert_checkpoint, "source"), (export_checkpoint, "checkpoint")):
        with pytest.raises(CheckpointError, match="no card"):
            run(str(tmp_path / source), tmp_path / "target")
    assert leftovers(tmp_path, "source", "checkpoint") == []
