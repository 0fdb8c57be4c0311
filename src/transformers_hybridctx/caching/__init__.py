# SPDX-License-Identifier: Apache-2.0
"""What the decoder made of a document, in memory and on disk."""
