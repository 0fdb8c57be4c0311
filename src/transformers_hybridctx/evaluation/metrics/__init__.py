# SPDX-License-Identifier: Apache-2.0
"""The benchmarks' own metrics, as published, quirks included: each takes an answer and gives 0 to 1."""
