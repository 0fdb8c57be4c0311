# SPDX-License-Identifier: Apache-2.0
"""What a config's YAML may say: fields of dataclasses, of the types that these state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml


class _Loader(yaml.SafeLoader):
    """YAML's, and 1e-6 is a number, as everybody who writes it means; YAML 1.1 asks for 1.0e-6."""


_FLOAT = re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def read_yaml(path: Path) -> dict[str, Any]:
    """
    Raises:
        FileNotFoundError, ValueError: no such file, or one that has no fields.
    """
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path} holds no fields; docs/training.md has an example")
    return given


def check_fields(name: str, given: Any, form: type, needed: tuple[str, ...] = ()) -> None:
    """
    Whether a value is a mapping of fields of a dataclass, each of the type that is stated.

    Raises:
        ValueError: another value, a field that `form` has not, or of another type, or one that is needed.
    """
    names = sorted(field.name for field in fields(form))
    known = f"there are {', '.join(names)}"
    if not isinstance(given, Mapping):
        raise ValueError(f"{name}: give fields, not {given!r:.80}; {known}")
    if unknown := sorted(str(key) for key in given if key not in names):
        raise ValueError(f"{name}: there is no {', '.join(unknown)}; {known}")
    if missing := [field for field in needed if field not in given]:
        raise ValueError(f"{name} lacks {', '.join(missing)}; {known}")
    hints = get_type_hints(form)
    for field, value in given.items():
        if not _fits(value, hints[field]):
            raise ValueError(f"{name}: {field}={value!r:.80} is not of the type {_written(hints[field])}")


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_fits(one, inner[1]) for one in value.values())
    if origin is tuple:
        return isinstance(value, (list, tuple)) and all(_fits(one, inner[0]) for one in value)
    if origin is not None:
        return isinstance(value, origin)
    if hint in (int, float):
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _written(hint: Any) -> str:
    words = getattr(hint, "__name__", "") if isinstance(hint, type) and not get_args(hint) else str(hint)
    return re.sub(r"\b(?:collections\.abc|typing)\.", "", words)


__all__ = ["check_fields", "read_yaml"]
