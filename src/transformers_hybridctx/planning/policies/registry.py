# SPDX-License-Identifier: Apache-2.0
"""Text policies by name: those of the package, and those that users register."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..knobs import shown
from .anchors import AnchorsPolicy
from .attention import AttentionPolicy
from .auto import AutoPolicy
from .base import TextPolicy
from .bm25 import BM25Policy
from .full import FullPolicy
from .middle import MiddlePolicy
from .none import NonePolicy
from .tail import TailPolicy

TEXT_POLICIES: dict[str, type[TextPolicy]] = {
    policy.name: policy
    for policy in (
        *(AnchorsPolicy, AttentionPolicy, AutoPolicy, BM25Policy, FullPolicy, MiddlePolicy, NonePolicy, TailPolicy),
    )
}


_BUILT_IN = frozenset(TEXT_POLICIES)


def register_text_policy(policy_class: type[TextPolicy]) -> type[TextPolicy]:
    """Make a policy known by its `name`; also usable as a class decorator.

    Raises:
        TypeError: not a subclass of [`TextPolicy`], or one whose instances cannot be told apart by their knobs.
        ValueError: no name, or the name of one of the package's own policies.
    """
    if not (isinstance(policy_class, type) and issubclass(policy_class, TextPolicy)):
        raise TypeError(f"{policy_class!r} is not a text policy: give a subclass of TextPolicy")
    name = getattr(policy_class, "name", None)
    if not isinstance(name, str) or not name:
        raise ValueError(f'{policy_class.__name__} has no name: give it one, such as name: ClassVar[str] = "mine"')
    if name in _BUILT_IN:
        raise ValueError(
            f"the text policy {name!r} is one of the package's own; give {policy_class.__name__} another name"
        )
    if policy_class.__hash__ is None:
        raise TypeError(
            f"{policy_class.__name__} cannot be hashed: make it a frozen dataclass, @dataclass(frozen=True)"
        )
    TEXT_POLICIES[name] = policy_class
    return policy_class


def resolve_text_policy(policy: str | dict[str, Any] | TextPolicy) -> TextPolicy:
    """A policy from its name, from `{"name": ..., knob: value}`, or itself.

    Raises:
        ValueError: an unknown name (the known ones are named) or knob, or a knob's value that makes no sense.
        TypeError: something else.
    """
    if isinstance(policy, TextPolicy):
        return _hashable(policy)
    if not isinstance(policy, (str, dict)):
        raise TypeError(f"text_policy must be a name, a dict with a name, or a TextPolicy, not {shown(policy)}")
    knobs: dict[str, Any] = {"name": policy} if isinstance(policy, str) else dict(policy)
    name = knobs.pop("name", None)
    if not isinstance(name, str) or name not in TEXT_POLICIES:
        raise ValueError(f"unknown text policy {shown(name)}; known policies: {', '.join(sorted(TEXT_POLICIES))}")
    if name == AutoPolicy.name and "beside" in knobs:
        knobs["beside"] = resolve_text_policy(knobs["beside"])
    make: Callable[..., TextPolicy] = TEXT_POLICIES[name]
    try:
        return _hashable(make(**knobs))
    except TypeError as error:
        raise ValueError(f"text policy {name!r} does not take {shown(knobs, 200)}: {error}") from error


def _hashable(policy: TextPolicy) -> TextPolicy:
    """The policy; TypeError where it cannot be told from others, as what it picks is kept."""
    try:
        hash(policy)
    except TypeError as error:
        raise TypeError(
            f"the text policy {shown(policy)} cannot be hashed ({error}): make it a frozen dataclass, "
            "@dataclass(frozen=True), with knobs that are numbers, strings or tuples"
        ) from error
    return policy
