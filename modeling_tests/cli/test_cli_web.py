# SPDX-License-Identifier: Apache-2.0
"""`hybridctx web`: what it refuses before it loads anything. The page itself: `modeling_tests/web`."""

from __future__ import annotations

import socket
from importlib import import_module
from pathlib import Path

import pytest
from command_line import refused

from transformers_hybridctx.cli.options import FileOptions

web = import_module("transformers_hybridctx.cli.web")


def test_a_port_that_is_taken_is_said_before_a_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        told = refused("web", "--no-browser", "--port", port, "--model", "/nowhere")
        assert refused("serve", "--port", port, "--model", "/nowhere") == told
    assert told.startswith(f"--port {port} cannot be had") and "0 for a free one" in told
    for host in ("999.999.9.9", "192.0.2.1", "no such name"):
        assert refused("serve", "--host", host) == f"--host {host} is no address of this machine"


def test_files_of_the_command_line_have_the_notes_of_dropped_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Die Straße führt über die Brücke nach Süden, sagte der Müller.".encode("cp1252"))
    with pytest.warns(UserWarning, match=r"a\.txt") as told:
        name, content, notes = web._with_notes(str(path), FileOptions())
    assert (name, content[:10]) == ("a.txt", "Die Straße")
    assert notes == tuple(str(one.message) for one in told) and len(notes) == 1


def test_a_file_that_is_not_there_is_named() -> None:
    assert "nowhere.txt" in refused("web", "--no-browser", "--port", 0, "nowhere.txt")
