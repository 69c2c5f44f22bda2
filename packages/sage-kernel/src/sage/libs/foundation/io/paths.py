"""Checks of the paths that users write, with errors that name the likely mistake."""

from __future__ import annotations

import difflib
import os
import stat
from pathlib import Path

from sage.libs.errors import SourceError

__all__ = ["require_directory", "require_file"]

# A directory of a million files must not make an error message slow.
_SIBLINGS_MAX = 10_000


def require_file(owner: str, path: Path) -> None:
    """Check that `path` is a regular file that can be read.

    Raises:
        SourceError: it is not; the message names the path and a file of a similar name beside it.

    Example:
        >>> require_file("FileSource", Path("/no/such/dir/questions.txt"))
        Traceback (most recent call last):
        ...
        sage.libs.errors.SourceError: FileSource: file '/no/such/dir/questions.txt' does not exist: its
        directory '/no/such/dir' does not exist either
    """
    mode = _mode(owner, "file", path)
    if stat.S_ISDIR(mode):
        raise SourceError(
            f"{owner}: file_path must be a file, got the directory {str(path)!r}; for a folder use DirectorySource"
        )
    if not stat.S_ISREG(mode):
        # A pipe or a device cannot be read twice, and a source promises to start again at an offset.
        raise SourceError(
            f"{owner}: file_path must be a regular file, got {str(path)!r} (a pipe or a device cannot be replayed)"
        )
    if not os.access(path, os.R_OK):
        raise SourceError(f"{owner}: no permission to read {str(path)!r}; check its mode and owner")


def require_directory(owner: str, path: Path) -> None:
    """Check that `path` is a directory that can be listed.

    Raises:
        SourceError: it is not.

    Example:
        >>> require_directory("DirectorySource", Path("/dev/null"))
        Traceback (most recent call last):
        ...
        sage.libs.errors.SourceError: DirectorySource: path must be a directory, got the file '/dev/null'
    """
    if not stat.S_ISDIR(_mode(owner, "directory", path)):
        raise SourceError(f"{owner}: path must be a directory, got the file {str(path)!r}")
    if not os.access(path, os.R_OK | os.X_OK):
        raise SourceError(f"{owner}: no permission to list {str(path)!r}; check its mode and owner")


def _mode(owner: str, kind: str, path: Path) -> int:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(f"{owner}: {kind} {str(path)!r} does not exist{_likely_mistake(path)}") from None
    except PermissionError:
        raise SourceError(
            f"{owner}: no permission to look at {str(path)!r}; check the modes of its directories"
        ) from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{owner}: cannot open {str(path)!r}: {error}") from error


def _likely_mistake(path: Path) -> str:
    parent = path.parent
    if path.is_symlink():
        return f": it is a link to {str(path.readlink())!r}, which is gone"
    if not parent.is_dir():
        return f": its directory {str(parent)!r} does not exist either"
    names: list[str] = []
    try:
        with os.scandir(parent) as entries:
            for entry in entries:
                names.append(entry.name)
                if len(names) >= _SIBLINGS_MAX:
                    break
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, sorted(names), n=1, cutoff=0.6)
    if close:
        return f"; did you mean {str(parent / close[0])!r}?"
    return "" if path.is_absolute() else f" (looked in {str(Path.cwd())!r})"
