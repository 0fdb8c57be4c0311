# SPDX-License-Identifier: Apache-2.0
"""Answers held against the document: evidence."""
