# SPDX-License-Identifier: Apache-2.0
"""The page in the browser: documents, what they would cost, answers as they come, and the pages that they stand on."""
