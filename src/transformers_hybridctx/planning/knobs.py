# SPDX-License-Identifier: Apache-2.0
"""Numbers that users send: bounded, and refused with the value, the bound and the way out."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

# What fits into 64 bits: enough for "as many as there are".
MOST = 2**63 - 1


def whole_number(name: str, value: Any, least: int, means: str, most: int = MOST) -> int:
    """The value as an int, ValueError unless it is a whole number between `least` and `most`.

    Args:
        means: what the number counts, and what else may be given, such as "tokens, or None".
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        is_open = most == MOST and (number is None or number < least)
        bounds = f"{least} or more" if is_open else f"{least} to {most}"
        raise ValueError(f"{name}={shown(value)} must be a whole number of {means}: {bounds}")
    return number


def real_number(name: str, value: Any, least: float, most: float, means: str) -> float:
    """The value as a float, ValueError unless it is a number between `least` and `most`."""
    number = math.nan
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    if not least <= number <= most:
        raise ValueError(f"{name}={shown(value)} must be between {least:g} and {most:g}: {means}")
    return number


def shown(value: Any, most: int = 80) -> str:
    """
    The first characters of what a user sent, for a message.

    Python itself refuses to print very long integers and deeply nested lists; a message never fails over its value.
    """
    try:
        return f"{value!r}"[:most]
    except (ValueError, RecursionError):
        if isinstance(value, int):
            return f"(an integer of {value.bit_length()} bits)"
        return f"(a {type(value).__name__} that cannot be printed)"
