"""The fixture of the end-to-end tests: each runs with Codex 0.77.0 and 0.169.0, or the newest."""

from __future__ import annotations

import os
import sys
import zlib
from typing import Any, Iterator, List

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

from install import tested_versions  # noqa: E402
from real import Real  # noqa: E402
from rights import Ground  # noqa: E402


def pytest_configure(config: Any) -> None:
    config.addinivalue_line(
        "markers", "versions(first, end): the versions of Codex for which there is such a test"
    )


def pytest_collection_modifyitems(items: List[Any]) -> None:
    """Leaves out what is no test for a version: nothing is skipped that could run."""

    def applies(item: Any) -> bool:
        mark, params = item.get_closest_marker("versions"), getattr(item, "callspec", None)
        if mark is None or params is None:
            return True
        version = tuple(map(int, str(params.params["real"]).split(".")))
        return mark.args[0] <= version and (len(mark.args) < 2 or version < mark.args[1])

    items[:] = filter(applies, items)


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
