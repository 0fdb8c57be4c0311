#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Merge a LoRA fine-tune into full weights. The same as `hybridctx merge-lora`."""

import typer

from transformers_hybridctx.cli.conversion import merge_lora

if __name__ == "__main__":
    typer.run(merge_lora)
