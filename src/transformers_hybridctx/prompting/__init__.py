# SPDX-License-Identifier: Apache-2.0
"""Any chat template's prompt, its holes filled with pages, spans and questions."""
