# SPDX-License-Identifier: Apache-2.0
"""Evaluation on long documents: the field's benchmarks, with pages, tokens and both at the same cost."""

from .contexts import Context, make_contexts
from .runner import run
from .samples import Sample
from .suites.base import Suite
from .suites.registry import SUITES, make_suite
from .tables import Table

__all__ = ["SUITES", "Context", "Sample", "Suite", "Table", "make_contexts", "make_suite", "run"]
