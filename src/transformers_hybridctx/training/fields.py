# SPDX-License-Identifier: Apache-2.0
"""What a config's YAML may say: fields of dataclasses, of the types that these state."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json


class _Loader(yaml.SafeLoader):
    """
    YAML's, where 1e-6 is a number, as everybody who writes it means (YAML 1.1 asks for 1.0e-6), a date is a text, and no
    key stands twice.
    """

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} stands twice, where the second would count alone", key.start_mark
                )
            seen[str(key.value)] = key
        return super().construct_mapping(node, deep)


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
        raise ValueError(f"{path} is no config in YAML: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path} holds no fields; docs/training.md has an example")
    return given


def check_fields(
    name: str, given: Any, form: type, needed: tuple[str, ...] = (), hints: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """
    A mapping of fields of a dataclass, each of the type that is stated.

    Args:
        name: of the mapping, for messages.
        hints: types in place of those that `form` states.

    Returns:
        The fields as values of these types: what is a dataclass, in YAML a mapping, is one.

    Raises:
        ValueError: another value, a field that `form` has not, or of another type, or a number that is not finite, or
            one that is needed.
    """
    names = sorted(field.name for field in fields(form))
    known = f"there are {', '.join(names)}"
    if not isinstance(given, Mapping):
        raise ValueError(f"{name}: give fields, not {given!r:.80}; {known}")
    if unknown := sorted(str(key) for key in given if key not in names):
        near = {one: get_close_matches(one, names, n=1) for one in unknown}
        meant = [f"{found[0]} in place of {one}" for one, found in near.items() if found]
        raise ValueError(
            f"{name}: there is no {', '.join(unknown)}; {'meant may be ' + ', '.join(meant) if meant else known}"
        )
    if missing := [field for field in needed if field not in given]:
        raise ValueError(f"{name} lacks {', '.join(missing)}; {known}")
    types = get_type_hints(form) | dict(hints or {})
    typed: dict[str, Any] = {}
    for field, value in given.items():
        for where, number in _numbers_in(value, field):
            if not math.isfinite(number):
                raise ValueError(f"{name}: {where}={number} has to be finite")
        parts = (types[field], *get_args(types[field]))
        nested: list[Any] = [one for one in parts if is_dataclass(one)]
        if len(nested) == 1 and isinstance(value, Mapping):
            typed[field] = nested[0](**check_fields(f"{name}.{field}", value, nested[0]))
            continue
        try:  # as JSON: a list is a tuple, a text the name of an enumeration's member, and true no number
            typed[field] = TypeAdapter(types[field]).validate_json(to_json(value), strict=True)
        except ValidationError as error:
            said = f"{name}: {field}={value!r:.80} is not of the type {_written(types[field])}"
            if isinstance(value, bool):
                said += "; no, off, yes and on without quotation marks are false and true in YAML"
            raise ValueError(said) from error
    return typed


def _numbers_in(value: Any, where: str) -> Iterator[tuple[str, float]]:
    """(place, number) for each float in what YAML holds, which may be .inf or .nan there."""
    if isinstance(value, float):
        yield where, value
    elif isinstance(value, (Mapping, list, tuple)):
        for key, one in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _numbers_in(one, f"{where}.{key}")


def _written(hint: Any) -> str:
    words = getattr(hint, "__name__", "") if isinstance(hint, type) and not get_args(hint) else str(hint)
    return re.sub(r"\b(?:collections\.abc|typing)\.", "", words)


__all__ = ["check_fields", "read_yaml"]
