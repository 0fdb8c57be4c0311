# SPDX-License-Identifier: Apache-2.0
"""Evaluation on long documents: needles in RULER's formats."""
