# SPDX-License-Identifier: Apache-2.0
"""Questions about documents, answered by a model: what is shared, what is generated, how sure it is."""
