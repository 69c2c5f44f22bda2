"""sage_db on a disk that is read only, full, or holds what it did not write there."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sage.common.errors import SageError, StoreError
from sage.middleware.components import sage_db

ROWS = 300


def folder_with_all_kinds_of_files(path: Path) -> dict[str, Path]:
    """A closed store that has a snapshot, a manifest, and a log with records that the snapshot lacks."""
    with sage_db.open(path) as database:
        notes = database.create_collection("notes", 4)
        notes.add(np.arange(ROWS), np.ones((ROWS, 4)), metadata=[{"n": n} for n in range(ROWS)], texts=["word"] * ROWS)
    with sage_db.open(path, checkpoint_at_close=False) as database:
        for first in range(ROWS, ROWS + 50, 10):
            database.collection("notes").add(np.arange(first, first + 10), np.ones((10, 4)))
    (snapshot,) = path.glob("snapshot-*")
    (log,) = path.glob("log-*")
    return {"manifest": path / "MANIFEST", "snapshot": snapshot, "log": log}


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


def cut(path: Path) -> None:
    # Neither the header alone nor a whole number of records.
    os.truncate(path, path.stat().st_size // 2 + 3)


def make_empty(path: Path) -> None:
    os.truncate(path, 0)


def make_foreign(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + bytes(4096))


def make_newer(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[12:16] = struct.pack("<I", struct.unpack("<I", content[12:16])[0] + 1)
    content[8:12] = struct.pack("<I", crc32c(content[12:64]))
    path.write_bytes(content)


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


DAMAGES: list[Callable[[Path], None]] = [flip_a_bit, cut, make_empty, make_foreign, make_newer, Path.unlink]
CASES = [(which, damage) for which in ("manifest", "snapshot", "log") for damage in DAMAGES]
CASES.remove(("log", cut))  # an unfinished end of the log is no damage: the test below


@pytest.mark.parametrize(("which", "damage"), CASES)
def test_damaged_files_are_named_and_stay_as_they_are(
    tmp_path: Path, which: str, damage: Callable[[Path], None]
) -> None:
    file = folder_with_all_kinds_of_files(tmp_path / "db")[which]
    damage(file)
    content = file.read_bytes() if file.exists() else None
    for attempt in (sage_db.verify, sage_db.open, lambda path: sage_db.open(path, read_only=True)):
        # Without its log or its manifest a folder is not even a store.
        with pytest.raises(SageError if damage is Path.unlink else StoreError) as failure:
            attempt(tmp_path / "db")
        named = which if damage is Path.unlink else file.name
        assert named.lower() in str(failure.value).lower()
        if damage is make_newer:
            assert "newer" in str(failure.value)
        assert (file.read_bytes() if file.exists() else None) == content


def test_an_unfinished_end_of_the_log_is_cut_off_and_told(tmp_path: Path) -> None:
    """As a crash leaves it: whole batches before it are kept, and verify says what it passed over."""
    log = folder_with_all_kinds_of_files(tmp_path / "db")["log"]
    size = log.stat().st_size
    counts = set()
    for kept in range(size, 64, -101):
        os.truncate(log, kept)
        report = sage_db.verify(tmp_path / "db")
        assert kept == size or log.name in report["dropped"] or report["dropped"] == ""
        with sage_db.open(tmp_path / "db", read_only=True) as database:
            count = len(database.collection("notes"))
        assert report["documents"] == count
        counts.add(count)
    assert counts == {ROWS + 10 * batches for batches in range(6)}
    with sage_db.open(tmp_path / "db") as database:
        database.collection("notes").add([ROWS], np.ones((1, 4)))
    assert sage_db.verify(tmp_path / "db")["dropped"] == ""


# The disk of a process of its own; `mount` needs rights that not every machine gives.
def on_a_disk_of_its_own(options: str, disk: Path, code: str) -> str:
    """Runs Python with a file system mounted on `disk`; what it prints."""
    disk.mkdir()
    script = f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$1" -c "$2" "$0"'
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    enter = ["unshare", "--mount", *user]
    if shutil.which("unshare") is None or subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount a file system of its own")
    done = subprocess.run(
        [*enter, "sh", "-c", script, str(disk), sys.executable, textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_a_disk_that_turns_read_only(tmp_path: Path) -> None:
    out = on_a_disk_of_its_own(
        "size=8m",
        tmp_path / "disk",
        """
        import subprocess, sys
        import numpy as np
        from sage.common.errors import StoreError
        from sage.middleware.components import sage_db
        path = sys.argv[1] + "/db"
        with sage_db.open(path) as database:
            database.create_collection("notes", 4).add(np.arange(10), np.ones((10, 4)))
        subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
        try:
            sage_db.open(path)
        except StoreError as error:
            print(error)
        with sage_db.open(path, read_only=True) as database:
            notes = database.collection("notes")
            print(len(notes), len(notes.search(np.ones(4), 3)))
        print(sage_db.verify(path)["documents"])
        try:
            sage_db.open(sys.argv[1] + "/other")
        except StoreError as error:
            print(error)
        """,
    )
    refused, read, verified, other = out.splitlines()
    assert "ead-only file system" in refused
    assert "opened read-only, the store needs no lock" in refused
    assert (read, verified) == ("10 3", "10")
    assert "ead-only file system" in other


def test_a_full_disk_in_the_middle_of_commits(tmp_path: Path) -> None:
    """Each batch is there whole or not at all, and when there is room again, writing goes on."""
    out = on_a_disk_of_its_own(
        "size=1m",
        tmp_path / "disk",
        """
        import os, sys
        import numpy as np
        from sage.common.errors import StoreFullError
        from sage.middleware.components import sage_db
        path = sys.argv[1] + "/db"
        with open(sys.argv[1] + "/ballast", "wb") as file:
            file.write(bytes(300_000))
        database = sage_db.open(path, checkpoint_log_bytes=200_000, checkpoint_at_close=False)
        notes = database.create_collection("notes", 64)
        count = refused = 0
        while refused < 5:
            try:
                notes.add(np.arange(count, count + 7), np.full((7, 64), count, np.float32))
                count += 7
            except StoreFullError as error:
                assert "pace left" in str(error), error
                refused += 1
            assert len(notes) == count
        os.remove(sys.argv[1] + "/ballast")
        notes.add(np.arange(count, count + 7), np.full((7, 64), count, np.float32))
        count += 7
        database.close()
        with sage_db.open(path, checkpoint_at_close=False, read_only=True) as database:
            notes = database.collection("notes")
            assert [each.id for each in notes.documents()] == list(range(count))
            print(count > 70, sage_db.verify(path)["documents"] == count)
        """,
    )
    assert out == "True True\n"
