# SPDX-License-Identifier: Apache-2.0
"""How checkpoints are made. Not a part of the installed package."""
