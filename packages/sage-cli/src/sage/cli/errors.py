"""Errors of the command line.

CommandError                an option or an argument that cannot be used; exit code 2
CommandInterruptedError     Ctrl-C before anything ran; exit code 130
"""

from __future__ import annotations

from sage.common.errors import SageError

__all__ = ["CommandError", "CommandInterruptedError"]


class CommandError(SageError):
    """An option or an argument cannot be used; the message names it."""


class CommandInterruptedError(SageError):
    """Ctrl-C before anything ran. Told apart from `KeyboardInterrupt`, which typer keeps for itself."""
