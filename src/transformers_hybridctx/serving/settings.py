# SPDX-License-Identifier: Apache-2.0
"""What a server allows: sizes, seconds, who may ask, and what it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB = 2**20


@dataclass(frozen=True)
class ServerSettings:
    """
    Attributes:
        model_name: what clients call the model.
        api_key: what clients have to send as a bearer token; None: nothing.
        hosts: names that clients may call the server by where it has no key; None: any.
        draw_over: a text of a message with more tokens than this is a document.
        max_request_bytes, max_request_seconds: of one request, uploads included, until it has come.
        max_connections: open at a time, where whoever runs the application bounds them by it, as the command does.
        max_stored_bytes: of all uploaded files together.
        max_files: how many of them.
        max_document_characters, max_pages: of all documents of one conversation.
        max_context_tokens: longest prompt; None: the checkpoint's own bound.
        max_new_tokens: longest answer, and the length where a request does not say one.
        max_seconds: for one answer, once its turn has come; it is cut off then.
        concurrency: requests that are worked on at a time. The model works for one of them; the others are laid out,
            drawn and planned meanwhile.
        max_waiting: requests that may wait for their turn; further ones are told to come again (429).
        memory_bytes: of readings kept in memory.
        cache_dir, cache_dir_bytes: where readings are kept beyond that, and how much of them. None: nowhere.
    """

    model_name: str = "hybridctx-tiny"
    api_key: str | None = None
    hosts: frozenset[str] | None = None
    draw_over: int = 1000
    max_request_bytes: int = 64 * MIB
    max_request_seconds: float = 120.0
    max_connections: int = 512
    max_stored_bytes: int = 1024 * MIB
    max_files: int = 10_000
    max_document_characters: int = 20_000_000
    max_pages: int = 5_000
    max_context_tokens: int | None = None
    max_new_tokens: int = 1024
    max_seconds: float = 300.0
    concurrency: int = 4
    max_waiting: int = 64
    memory_bytes: int = 1024 * MIB
    cache_dir: Path | None = None
    cache_dir_bytes: int = 16_384 * MIB

    def __post_init__(self) -> None:
        least = {
            "max_seconds": 0.01,
            "max_request_seconds": 0.01,
            "max_waiting": 0,
            "memory_bytes": 0,
            "cache_dir_bytes": 0,
            "draw_over": 0,
        }
        for name, value in vars(self).items():
            smallest = least.get(name, 1)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value < smallest:
                raise ValueError(f"{name}={value} must be {smallest} or more")
        if self.api_key is not None and not self.api_key.strip():
            raise ValueError("api_key is empty: give one, or leave it out for a server that asks for none")
