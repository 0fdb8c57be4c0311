# SPDX-License-Identifier: Apache-2.0
"""Files that hold nothing."""

from __future__ import annotations


class EmptyFileError(ValueError):
    """A file without bytes, text or pages: an error where it is asked for, and left out of a folder that holds more."""
