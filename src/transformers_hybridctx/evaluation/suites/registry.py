# SPDX-License-Identifier: Apache-2.0
"""Suites by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from .base import Suite
from .chains import TradeOffTasks
from .fox import Fox
from .helmet import Helmet
from .longbench import LongBench, LongBenchV2
from .mmlongbench import MMLongBenchDoc
from .mrcr import MRCR
from .needles import Needles, SaidNeedles
from .niah import NeedleAtDepths
from .papers import Qasper
from .rows import Rows
from .ruler.suite import Ruler
from .vtcbench import VTCBench

SUITES: dict[str, type[Suite]] = {
    suite.name: suite
    for suite in (
        Needles,
        SaidNeedles,
        Ruler,
        NeedleAtDepths,
        LongBench,
        LongBenchV2,
        Helmet,
        MRCR,
        Qasper,
        VTCBench,
        Fox,
        MMLongBenchDoc,
        Rows,
        TradeOffTasks,
    )
}


def make_suite(name: str, **knobs: Any) -> Suite:
    """
    A suite from its name and its knobs; those that are None are left to the suite.

    Raises:
        ValueError: an unknown name, or a knob that the suite does not have.
    """
    if name not in SUITES:
        raise ValueError(
            f"unknown suite {name!r}; known suites: {', '.join(sorted(SUITES))}, or a text file for needles"
        )
    given = {knob: value for knob, value in knobs.items() if value is not None}
    known = {one.name for one in fields(SUITES[name])}
    if unknown := sorted(given.keys() - known):
        raise ValueError(f"the suite {name!r} has no {unknown[0]}; it has {', '.join(sorted(known))}")
    return SUITES[name](**given)


__all__ = ["SUITES", "make_suite"]
