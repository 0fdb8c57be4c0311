# SPDX-License-Identifier: Apache-2.0
"""Parts of the model: vision tower, quantisation, loading."""
