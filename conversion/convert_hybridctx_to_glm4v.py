#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write a HybridCtx checkpoint as a plain one of the GLM-4V family. The same as `hybridctx export`."""

import sys

from transformers_hybridctx.cli.app import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
