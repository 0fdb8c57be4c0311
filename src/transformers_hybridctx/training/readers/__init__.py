# SPDX-License-Identifier: Apache-2.0
"""Data sets as published, one file a schema."""
