# SPDX-License-Identifier: Apache-2.0
"""The document that most of the command line's tests ask about."""

from __future__ import annotations

import pytest
from command_line import TALE


@pytest.fixture(scope="session")
def document(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("documents") / "tale.txt"
    path.write_text(TALE)
    return str(path)
