"""The `sage` command as the shell starts it. What it needs is imported only here, under a handler of Ctrl-C: that takes
longer than many a command.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

from .exit_codes import ExitCode

__all__ = ["main"]


def main() -> int:
    """Run the command with the arguments of the process; the exit code."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        # No KeyboardInterrupt: whoever is being imported may take it for an error of his own.
        signal.signal(signal.SIGINT, _leave)
    from .main import main as run

    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, before)
    return run()


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(ExitCode.INTERRUPTED)
