# SPDX-License-Identifier: Apache-2.0
"""Benchmarks, one a file: where their samples come from, how they are scored, and which figures of them are quoted."""
