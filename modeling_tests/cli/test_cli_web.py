# SPDX-License-Identifier: Apache-2.0
"""`hybridctx web`: what it refuses before it loads anything. The page itself: `modeling_tests/web`."""

from __future__ import annotations

import socket

from command_line import refused


def test_a_port_that_is_taken_is_said_before_a_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        told = refused("web", "--no-browser", "--port", port, "--model", "/nowhere")
    assert told.startswith(f"--port {port} cannot be had") and "0 for a free one" in told


def test_a_file_that_is_not_there_is_named() -> None:
    assert "nowhere.txt" in refused("web", "--no-browser", "--port", 0, "nowhere.txt")
