# SPDX-License-Identifier: Apache-2.0
"""What goes into a context under a budget: `ContextBudget` to `ContextPlan`, and the text policies."""
