# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the GLM-4V family to HybridCtx and back, tensor by tensor."""
