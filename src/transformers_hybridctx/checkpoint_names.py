# SPDX-License-Identifier: Apache-2.0
"""Names of checkpoints: a folder here, or an id that the Hub can be asked for."""

from __future__ import annotations

from pathlib import Path

_OWNER_AND_NAME = 2


def checked_name(name: str, said_as: str) -> str:
    """
    The name of a checkpoint, `~` spelled out, where it is not a path to nowhere that the Hub would be asked for in vain.

    Args:
        name: a folder, or an id on the Hub (owner/name).
        said_as: what asked for it, for the message.

    Raises:
        FileNotFoundError: no folder here, and no id: a path of another form, or one that begins with a folder of this
            machine.
    """
    if name.startswith("~"):
        name = str(Path(name).expanduser())
    path = Path(name)
    if path.is_dir():
        return name
    if path.exists():
        raise FileNotFoundError(f"{said_as} {name} is a file: name the folder that it is in")
    parts = name.split("/")
    if len(parts) != _OWNER_AND_NAME or parts[0] in ("", ".", "..") or Path(parts[0]).is_dir():
        raise FileNotFoundError(f"{said_as} {name}: there is no such folder here; an id on the Hub is owner/name")
    return name


__all__ = ["checked_name"]
