#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write a HybridCtx checkpoint as a plain one of the GLM-4V family. The same as `hybridctx export`."""

import typer

from transformers_hybridctx.cli.conversion import export

if __name__ == "__main__":
    typer.run(export)
