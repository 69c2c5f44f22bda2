"""`sage dead-letters`."""

from __future__ import annotations

import shlex
import sys
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sage.kernel.runtime.dead_letters import DEAD_LETTERS_FILE, DeadLetter, DeadLetterStore

from .errors import CommandError
from .exit_codes import ExitCode
from .plain_text import one_line, printable
from .quantities import plural
from .report import dead_letter_fields
from .summary import DEFAULT_HOME

__all__ = ["list_dead_letters", "show_dead_letter"]

_WIDTH_WITHOUT_TERMINAL = 160
_LABEL_WIDTH = 10


def list_dead_letters(
    home: Path, *, job: str | None, operator: str | None, limit: int, as_json: bool
) -> ExitCode:
    """Print the newest dead letters, the oldest of them first: a table, or one JSON object per line.

    Raises:
        CommandError: the folder is not there.
        StoreError: what is in it cannot be read.
    """
    _require_home(home)
    letters: deque[DeadLetter] = deque(maxlen=limit)
    total = 0
    with DeadLetterStore(home) as store:
        for letter in store.read(job_id=job, operator=operator):
            # Only what is shown: a letter carries its item up to 16 MiB.
            letters.append(letter if as_json else msgspec.structs.replace(letter, payload=None, traceback=""))
            total += 1
    if as_json:
        for letter in letters:
            sys.stdout.write(msgspec.json.encode(dead_letter_fields(letter)).decode() + "\n")
        return ExitCode.DONE
    if not letters:
        which = "".join(
            f" of {what} {name!r}" for what, name in (("job", job), ("operator", operator)) if name
        )
        sys.stdout.write(f"no dead letters{which} in {home / DEAD_LETTERS_FILE}\n")
        return ExitCode.DONE
    _print_table(list(letters), with_job=job is None)
    shown = plural(total, "dead letter")
    if len(letters) < total:
        shown = f"the newest {len(letters)} of {shown} (--limit shows more)"
    command = ["sage", "dead-letters", "show", str(letters[-1].number), *_home_option(home)]
    sys.stdout.write(f"\n{shown}; one in full: {shlex.join(command)}\n")
    return ExitCode.DONE


def show_dead_letter(home: Path, number: int, *, as_json: bool) -> ExitCode:
    """Print one dead letter in full.

    Raises:
        CommandError: the folder is not there, or has no letter with this number.
        StoreError: what is in it cannot be read.
    """
    _require_home(home)
    with DeadLetterStore(home) as store:
        letter = store.get(number)
    if letter is None:
        command = shlex.join(["sage", "dead-letters", "list", *_home_option(home)])
        raise CommandError(
            f"there is no dead letter {number} in {home / DEAD_LETTERS_FILE}; {command} shows them"
        )
    if as_json:
        sys.stdout.write(msgspec.json.encode(dead_letter_fields(letter)).decode() + "\n")
        return ExitCode.DONE
    lines = [
        ("number", str(letter.number)),
        ("time", _time(letter)),
        ("job", f"{letter.job} ({letter.job_id})"),
        ("operator", f"{letter.operator} (replica {letter.replica_index})"),
        ("attempts", str(letter.attempts)),
        ("key", letter.key or "-"),
        ("item", letter.item),
        ("error", one_line(f"{letter.error_type}: {letter.error}")),
        ("replay", "possible" if letter.payload is not None else "not possible: the item cannot be pickled"),
    ]
    for label, text in lines:
        sys.stdout.write(f"{label:<{_LABEL_WIDTH}}{printable(text)}\n")
    sys.stdout.write(f"\n{printable(letter.traceback).rstrip()}\n")
    return ExitCode.DONE


def _print_table(letters: list[DeadLetter], *, with_job: bool) -> None:
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    console = Console(width=width, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("no.", justify="right", no_wrap=True)
    table.add_column("time", no_wrap=True)
    if with_job:
        table.add_column("job", no_wrap=True, overflow="ellipsis", min_width=8)
    table.add_column("operator", no_wrap=True, overflow="ellipsis", min_width=8)
    table.add_column("item", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("error", no_wrap=True, overflow="ellipsis", ratio=2)
    for letter in letters:
        cells = [str(letter.number), _time(letter), *([letter.job] if with_job else [])]
        cells += [letter.operator, letter.item, f"{letter.error_type}: {letter.error}"]
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    console.print(table)


def _time(letter: DeadLetter) -> str:
    return datetime.fromtimestamp(letter.time, UTC).strftime("%Y-%m-%d %H:%M:%S") + "Z"


def _require_home(home: Path) -> None:
    # The default one is made by the first dead letter.
    if home != DEFAULT_HOME and not home.is_dir():
        raise CommandError(
            f"there is no folder {str(home)!r}: --home is the folder that the run kept its dead letters in "
            "(.sage below the one where it was started)"
        )


def _home_option(home: Path) -> list[str]:
    return [] if home == DEFAULT_HOME else ["--home", str(home)]
