# SPDX-License-Identifier: Apache-2.0
"""The console script `hybridctx`, beside the package: importing that brings torch, and --help is to be quick."""

import os


def main() -> None:
    os.environ["HYBRIDCTX_LIGHT_START"] = "1"
    from transformers_hybridctx.cli.app import main as run

    run()
