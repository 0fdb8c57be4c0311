# SPDX-License-Identifier: Apache-2.0
"""`python -m transformers_hybridctx`: the command `hybridctx`."""

from .cli.app import main

if __name__ == "__main__":
    main()
