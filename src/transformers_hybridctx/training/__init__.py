# SPDX-License-Identifier: Apache-2.0
"""How the bundled checkpoint hybridctx-tiny was trained: corpus, tasks, batches and stages."""
