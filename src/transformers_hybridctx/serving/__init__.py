# SPDX-License-Identifier: Apache-2.0
"""An OpenAI-compatible server: documents are read once for all who ask about them."""
