#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Convert a checkpoint of the GLM-4V family to HybridCtx. The same as `hybridctx convert`."""

import sys

from transformers_hybridctx.cli.app import main

if __name__ == "__main__":
    main(["convert", *sys.argv[1:]])
