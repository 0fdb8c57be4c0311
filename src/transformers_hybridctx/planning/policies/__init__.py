# SPDX-License-Identifier: Apache-2.0
"""Text policies, one a file."""
