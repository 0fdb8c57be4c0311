# SPDX-License-Identifier: Apache-2.0
"""The rule set of a config, by its `line_breaking`."""

from __future__ import annotations

from .cell_rules import CellRules
from .layout_rules import LayoutRules
from .plain_rules import PlainRules
from .reportlab_rules import ReportlabRules
from .settings import RenderConfig

_RULE_SETS: dict[str, LayoutRules] = {"plain": PlainRules(), "reportlab": ReportlabRules(), "cells": CellRules()}


def rules_of(config: RenderConfig) -> LayoutRules:
    """The one object of its kind."""
    return _RULE_SETS[config.line_breaking]
