# SPDX-License-Identifier: Apache-2.0
"""Text to pages: settings, fonts, lines, typesetting, pictures, and which visual token shows which character."""
