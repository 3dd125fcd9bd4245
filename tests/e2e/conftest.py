"""The fixture of the end-to-end tests: each runs with Codex 0.77.0 and 0.169.0, or the newest."""

from __future__ import annotations

import os
import sys
from typing import Any, Iterator

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

from install import CODEX_VERSIONS  # noqa: E402
from real import Real  # noqa: E402


@pytest.fixture(params=CODEX_VERSIONS)
def real(request: Any) -> Iterator[Real]:
    real = Real(request.param)
    yield real
    real.close()


@pytest.fixture
def newest() -> Iterator[Real]:
    real = Real(CODEX_VERSIONS[-1])
    yield real
    real.close()
