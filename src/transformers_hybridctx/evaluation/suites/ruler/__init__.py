# SPDX-License-Identifier: Apache-2.0
"""RULER (https://arxiv.org/abs/2404.06654): its 13 tasks, generated here as NVIDIA's generator does.

The forms, constants and the order in which random numbers are drawn are those of NVIDIA/RULER at c3f5e3b
(Apache-2.0), so that
the same seed, tokenizer, words and prose give the same rows.
"""
