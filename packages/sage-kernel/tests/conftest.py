"""What the kernel's tests share: the `execution` fixture, and the helper modules beside the tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# pytest's importlib mode puts no test folder on the path; `reference` and `strategies` are imported from here.
sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from executions import ExecutionKind


@pytest.fixture(params=["thread", "async", "process"])
def execution(request: pytest.FixtureRequest) -> ExecutionKind:
    """The execution kind that a semantic test runs on; Ray joins here."""
    from executions import KINDS

    return KINDS[request.param]


@pytest.fixture(params=["thread", "async", "process", "line"])
def execution_drawn(request: pytest.FixtureRequest) -> ExecutionKind:
    """The kinds that random pipelines run on: also processes of which one passes on to the next."""
    from executions import KINDS

    return KINDS[request.param]


@pytest.fixture(params=["thread", "async"])
def execution_here(request: pytest.FixtureRequest) -> ExecutionKind:
    """The kinds whose operators share the memory of the test, for tests that look at what their operators keep."""
    from executions import KINDS

    return KINDS[request.param]
