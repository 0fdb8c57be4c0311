# SPDX-License-Identifier: Apache-2.0
"""Names of checkpoints: a folder here, or an id that the Hub can be asked for."""

from __future__ import annotations

from pathlib import Path

_OWNER_AND_NAME = 2
_PATIENCE = 10.0
"""Seconds that the Hub has for an answer."""


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


def name_that_can_be_had(name: str, said_as: str, revision: str | None = None) -> str:
    """
    As [`checked_name`]; of what is neither here nor kept, the Hub is asked once whether it has it: loading tries for half
    a minute.

    Args:
        name, said_as: as [`checked_name`] takes and gives them.
        revision: a branch, tag or commit.

    Raises:
        FileNotFoundError: as [`checked_name`]; or the Hub has no such checkpoint, or cannot be asked.
    """
    name = checked_name(name, said_as)
    if Path(name).is_dir():
        return name
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        return name
    try:
        HfApi().model_info(name, revision=revision, timeout=_PATIENCE)
    except (HFValidationError, RevisionNotFoundError):
        pass  # which loading tells at once
    except Exception as error:  # of whichever client the Hub's library uses
        match error:
            case GatedRepoError():
                why = "asks you to accept its conditions there, and to log in (`hf auth login`)"
            case RepositoryNotFoundError():
                why = "has none of that name; a private one needs a login (`hf auth login`)"
            case OfflineModeIsEnabled():
                why = "may not be asked (HF_HUB_OFFLINE)"
            case _:
                why = f"cannot be asked ({error})"
        raise FileNotFoundError(f"{said_as} {name}: there is no such folder here, and the Hub {why}") from error
    return name


__all__ = ["checked_name", "name_that_can_be_had"]
