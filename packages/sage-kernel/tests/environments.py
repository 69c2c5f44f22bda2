"""Environments for tests: they keep their dead letters in the test's folder, watch closely and give up soon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sage.kernel.api import JobResult, LocalEnvironment
from sage.kernel.runtime import DeadLetter, DeadLetterStore

__all__ = ["SCRATCH", "environment", "finished", "letters"]

# Dead letters are synced to disk one by one; memory keeps that out of the time of tests with many.
SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None


def environment(home: Path, **config: Any) -> LocalEnvironment:
    """An environment whose dead letters go to `home`."""
    return LocalEnvironment("tested", {"home": home, "watchdog_s": 10, "abort_grace_s": 2, **config})


def finished(env: LocalEnvironment) -> JobResult:
    """Run it to its end."""
    result = env.submit().result
    assert result is not None
    return result


def letters(home: Path) -> list[DeadLetter]:
    """All dead letters under `home`."""
    with DeadLetterStore(home) as store:
        return list(store.read())
