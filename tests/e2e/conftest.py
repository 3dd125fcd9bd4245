"""The fixture of the end-to-end tests: each runs with Codex 0.77.0 and 0.169.0, or the newest."""

from __future__ import annotations

import os
import sys
import zlib
from typing import Any, Iterator

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

from install import tested_versions  # noqa: E402
from real import Real  # noqa: E402
from rights import Ground  # noqa: E402


@pytest.fixture(params=tested_versions())
def real(request: Any) -> Iterator[Real]:
    real = Real(request.param)
    yield real
    real.close()


@pytest.fixture
def newest() -> Iterator[Real]:
    real = Real(tested_versions()[-1])
    yield real
    real.close()


@pytest.fixture(params=tested_versions())
def ground(request: Any) -> Iterator[Ground]:
    # Which of the guards begins a session alternates from test to test.
    ground = Ground(request.param, bool(zlib.crc32(request.node.name.encode()) & 1))
    yield ground
    ground.close()
