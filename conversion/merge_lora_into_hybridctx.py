#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Merge a LoRA fine-tune into full weights. The same as `hybridctx merge-lora`."""

import sys

from transformers_hybridctx.cli.app import main

if __name__ == "__main__":
    main(["merge-lora", *sys.argv[1:]])
