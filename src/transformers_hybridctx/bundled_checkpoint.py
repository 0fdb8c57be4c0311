# SPDX-License-Identifier: Apache-2.0
"""Where the checkpoint inside the package is; nothing else, so that naming it costs no import."""

from pathlib import Path

BUNDLED_CHECKPOINT = Path(__file__).with_name("hybridctx-tiny")
"""The folder of `hybridctx-tiny`."""

__all__ = ["BUNDLED_CHECKPOINT"]
