"""What the commands of one call of `sage` share."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from .terminal import Terminal

__all__ = ["Session", "session_of"]


@dataclass(slots=True)
class Session:
    """One call of the command.

    Attributes:
        terminal: the standard streams.
        traceback: whether an error shows where it was raised (`--traceback`).
    """

    terminal: Terminal
    traceback: bool = False


def session_of(context: typer.Context) -> Session:
    """The session that a command runs in."""
    session = context.obj
    assert isinstance(session, Session)
    return session
