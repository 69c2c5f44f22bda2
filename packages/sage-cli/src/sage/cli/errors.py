"""Errors of the command line.

CommandError    an option or an argument that cannot be used; exit code 2
"""

from __future__ import annotations

from sage.common.errors import SageError

__all__ = ["CommandError"]


class CommandError(SageError):
    """An option or an argument cannot be used; the message names it."""
