# SPDX-License-Identifier: Apache-2.0
"""What a user trains with: data sets, objectives, packing, a trainer and its report."""
