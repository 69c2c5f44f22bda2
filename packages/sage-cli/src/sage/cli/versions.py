"""Which versions of the five distributions are installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["DISTRIBUTIONS", "installed_versions"]

DISTRIBUTIONS = ("sage-common", "sage-platform", "sage-kernel", "sage-middleware", "sage-cli")


def installed_versions() -> dict[str, str | None]:
    """Version by distribution, lowest layer first; None for one that runs from its source tree uninstalled.

    Example:
        >>> list(installed_versions())[0]
        'sage-common'
    """
    return {name: _version(name) for name in DISTRIBUTIONS}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
