# SPDX-License-Identifier: Apache-2.0
"""How the bundled checkpoint, hybridctx-tiny, is made."""
