"""`sage dead-letters`."""

from __future__ import annotations

import os
import shlex
import sys
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sage.kernel.runtime.dead_letters import DEAD_LETTERS_FILE, DeadLetter, DeadLetterStore, LetterState

from .errors import CommandError
from .exit_codes import ExitCode
from .plain_text import one_line, printable
from .quantities import plural
from .report import dead_letter_fields
from .summary import DEFAULT_HOME

__all__ = ["export_dead_letters", "list_dead_letters", "require_home", "show_dead_letter"]

_WIDTH_WITHOUT_TERMINAL = 160
_LABEL_WIDTH = 10
_NAME_MAX = 24
_TEXT_MIN = 8
_GAP = 2
_WIDTH_OF_YEARS = 100  # on a narrower terminal the year gives way to the error


def list_dead_letters(
    home: Path, *, job: str | None, operator: str | None, limit: int, as_json: bool, every: bool = False
) -> ExitCode:
    """Print the newest dead letters, the oldest of them first: a table, or one JSON object per line. Only open ones
    unless `every` is asked for.

    Raises:
        CommandError: the folder is not there.
        StoreError: what is in it cannot be read.
    """
    require_home(home)
    letters: deque[DeadLetter] = deque(maxlen=limit)
    total = 0
    with DeadLetterStore(home) as store:
        for letter in store.read(job_id=job, operator=operator, states=_states(every)):
            # Only what is shown: a letter carries its item up to 16 MiB.
            letters.append(letter if as_json else msgspec.structs.replace(letter, payload=None, traceback=""))
            total += 1
    if as_json:
        for letter in letters:
            sys.stdout.write(msgspec.json.encode(dead_letter_fields(letter)).decode() + "\n")
        return ExitCode.DONE
    if not letters:
        which = "".join(f" of {what} {name!r}" for what, name in (("job", job), ("operator", operator)) if name)
        sys.stdout.write(f"no dead letters{which} in {home / DEAD_LETTERS_FILE}\n")
        return ExitCode.DONE
    _print_table(list(letters), with_job=job is None, with_state=every)
    shown = plural(total, "dead letter")
    if len(letters) < total:
        shown = f"the newest {len(letters):,} of {shown}; --limit shows more"
    command = ["sage", "dead-letters", "show", str(letters[-1].number), *_home_option(home)]
    sys.stdout.write(f"\n{shown}\none in full: {shlex.join(command)}\n")
    return ExitCode.DONE


def show_dead_letter(home: Path, number: int, *, as_json: bool) -> ExitCode:
    """Print one dead letter in full.

    Raises:
        CommandError: the folder is not there, or has no letter with this number.
        StoreError: what is in it cannot be read.
    """
    require_home(home)
    with DeadLetterStore(home) as store:
        letter = store.get(number)
    if letter is None:
        command = shlex.join(["sage", "dead-letters", "list", *_home_option(home)])
        raise CommandError(f"there is no dead letter {number} in {home / DEAD_LETTERS_FILE}; {command} shows them")
    if as_json:
        sys.stdout.write(msgspec.json.encode(dead_letter_fields(letter)).decode() + "\n")
        return ExitCode.DONE
    lines = [
        ("number", str(letter.number)),
        ("time", f"{_time(letter)}Z"),
        ("job", f"{letter.job} ({letter.job_id})"),
        ("operator", f"{letter.operator} (replica {letter.replica_index})"),
        ("attempts", str(letter.attempts)),
        ("key", letter.key or "-"),
        ("item", letter.item),
        ("error", one_line(f"{letter.error_type}: {letter.error}")),
        ("state", letter.state.value),
        ("retry", "possible" if letter.replayable else "not possible: the item cannot be pickled"),
    ]
    if letter.side is not None:
        lines.insert(6, ("stream", ("first", "second")[letter.side]))
    for label, text in lines:
        sys.stdout.write(f"{label:<{_LABEL_WIDTH}}{printable(text)}\n")
    sys.stdout.write(f"\n{printable(letter.traceback).rstrip()}\n")
    return ExitCode.DONE


def export_dead_letters(
    home: Path, *, job: str | None, operator: str | None, every: bool, output: Path | None
) -> ExitCode:
    """Write dead letters as JSON Lines, the oldest first: to a new file of mode 0600, or to standard output.

    Raises:
        CommandError: the folder is not there, or the file is there already or cannot be written.
        StoreError: what is in the store cannot be read.
    """
    require_home(home)
    count = 0
    with DeadLetterStore(home) as store:
        letters = store.read(job_id=job, operator=operator, states=_states(every))
        if output is None:
            for letter in letters:
                sys.stdout.write(_json_line(letter).decode())
            return ExitCode.DONE
        try:
            # A new file only: items may be secrets, and a file that is there may be readable by others.
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                for letter in letters:
                    file.write(_json_line(letter))
                    count += 1
        except FileExistsError as error:
            raise CommandError(f"{output} is there already: name a new file") from error
        except OSError as error:
            raise CommandError(f"cannot write {output}: {error.strerror}") from error
    sys.stdout.write(f"{plural(count, 'dead letter')} written to {output}\n")
    return ExitCode.DONE


def _json_line(letter: DeadLetter) -> bytes:
    return msgspec.json.encode(dead_letter_fields(letter)) + b"\n"


def _states(every: bool) -> Iterable[LetterState]:
    return LetterState if every else (LetterState.OPEN,)


def _print_table(letters: list[DeadLetter], *, with_job: bool, with_state: bool) -> None:
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False)
    headers = [
        "no.",
        "time (UTC)",
        *(["state"] if with_state else []),
        *(["job"] if with_job else []),
        "operator",
        "item",
        "error",
    ]
    rows = [
        [
            str(letter.number),
            _time(letter, short=console.width < _WIDTH_OF_YEARS),
            *([letter.state.value] if with_state else []),
            *([one_line(letter.job, _NAME_MAX)] if with_job else []),
            one_line(letter.operator, _NAME_MAX),
            one_line(letter.item),
            one_line(f"{letter.error_type}: {letter.error}"),
        ]
        for letter in letters
    ]
    # What may be cut, item and error, shares the room that the other columns leave.
    widths = [max(map(cell_len, column)) for column in zip(headers, *rows, strict=True)]
    room = max(2 * _TEXT_MIN, console.width - sum(widths[:-2]) - _GAP * (len(headers) - 1))
    item_width = min(widths[-2], max(_TEXT_MIN, room // 3, room - widths[-1]))
    limits = [*widths[:-2], item_width, max(_TEXT_MIN, room - item_width)]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for header, limit in zip(headers, limits, strict=True):
        table.add_column(
            header,
            justify="right" if header == "no." else "left",
            no_wrap=True,
            overflow="ellipsis",
            max_width=limit,
        )
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _time(letter: DeadLetter, *, short: bool = False) -> str:
    return datetime.fromtimestamp(letter.time, UTC).strftime("%m-%d %H:%M:%S" if short else "%Y-%m-%d %H:%M:%S")


def require_home(home: Path) -> None:
    """Refuse a folder that is not there; the default one is made by the first dead letter.

    Raises:
        CommandError: it is not there.
    """
    if home != DEFAULT_HOME and not home.is_dir():
        raise CommandError(
            f"there is no folder {str(home)!r}: --home is the folder that the run kept its dead letters in "
            "(.sage below the one where it was started)"
        )


def _home_option(home: Path) -> list[str]:
    return [] if home == DEFAULT_HOME else ["--home", str(home)]
