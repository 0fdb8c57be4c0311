#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Convert a checkpoint of the GLM-4V family to HybridCtx. The same as `hybridctx convert`."""

import typer

from transformers_hybridctx.cli.conversion import convert

if __name__ == "__main__":
    typer.run(convert)
