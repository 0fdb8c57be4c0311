# SPDX-License-Identifier: Apache-2.0
"""Addresses that servers listen on, looked at before anything takes long."""

from __future__ import annotations

import errno
import os
import socket


def listener(port: int, host: str = "127.0.0.1") -> socket.socket:
    """
    A socket that listens.

    Raises:
        ValueError: the port is taken, or the address is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        number = error.errno or 0
        if number < 0 or number == errno.EADDRNOTAVAIL:  # below 0: no name or number that can be looked up
            raise ValueError(f"--host {host} is no address of this machine") from error
        raise ValueError(
            f"--port {port} cannot be had on {host} ({os.strerror(number)}): give another one, or 0 for a free one"
        ) from error


__all__ = ["listener"]
