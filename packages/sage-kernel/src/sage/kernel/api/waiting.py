"""Waits for a job in the foreground, where Ctrl-C may come in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sage.kernel.runtime import JobHandle

__all__ = ["wait_interruptible"]


def wait_interruptible(wait: Callable[[], Any], job: JobHandle) -> None:
    """Wait for a job; the first Ctrl-C drains it, the second aborts it, and either is raised again once the
    job has ended.
    """
    try:
        wait()
    except KeyboardInterrupt:
        job.stop()
        try:
            job.wait()
        except KeyboardInterrupt:
            job.abort("interrupted twice")
            job.wait()
        raise
