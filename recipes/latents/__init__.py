# SPDX-License-Identifier: Apache-2.0
"""A latent encoder for a small checkpoint: how it is trained, and what it keeps of a text beside other ways."""
