"""What a SQLite store must withstand: crashes, full disks, other processes, foreign and damaged files."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from sage.common.errors import InvalidArgumentError, StoreError, StoreFullError
from sage.platform.stores import MemoryStore, SqliteStore

# --- the file
# ------------------------------------------------------------------------------------------------


def test_contents_survive_closing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with SqliteStore(path) as first:
        first.key_values("a").put("k", b"v")
        first.record_log("l").append_many([b"x", b"y"])
        first.record_log("l").truncate_before(3)
    with SqliteStore(path, synchronous="NORMAL") as second:
        assert second.key_values("a").get("k") == b"v"
        assert second.record_log("l").append(b"z") == 3


def test_file_and_new_directories_are_private(tmp_path: Path) -> None:
    path = tmp_path / "one" / "two" / "store.db"
    old = os.umask(0)
    try:
        with SqliteStore(path) as opened:
            opened.key_values("a").put("k", b"v")
            modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert set(modes) == {"store.db", "store.db-wal", "store.db-shm"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"these are my notes\n" * 200)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"notes\.txt: is not a SAGE store"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_foreign_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_newer_and_damaged_schemas_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    SqliteStore(path).close()
    for version, message in [(2, "newer version of SAGE"), (-1, "damaged")]:
        connection = sqlite3.connect(path)
        connection.execute("UPDATE schema_version SET version = ?", (version,))
        connection.commit()
        connection.close()
        with pytest.raises(StoreError, match=message):
            SqliteStore(path)


def test_a_damaged_file_is_an_error_not_a_wrong_answer(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with SqliteStore(path) as opened:
        opened.record_log("l").append_many([bytes(900) for _ in range(200)])
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"store\.db: ") as caught, SqliteStore(path) as opened:
        opened.record_log("l").read()
    assert isinstance(caught.value.cause, sqlite3.DatabaseError)


def test_paths_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a directory"):
        SqliteStore(tmp_path)
    with pytest.raises(StoreError, match="not a directory"):
        SqliteStore(tmp_path / "file" / "store.db")
    with pytest.raises(StoreError, match="null"):
        SqliteStore("bad\0path")


@pytest.mark.parametrize("arguments", [{"synchronous": "full"}, {"busy_timeout_s": -1}, {"value_bytes_max": 0}])
def test_bad_settings_are_refused(tmp_path: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(arguments))):
        SqliteStore(tmp_path / "store.db", **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidArgumentError, match="value_bytes_max"):
        MemoryStore(value_bytes_max=0)


# --- other processes
# -----------------------------------------------------------------------------------------


def _start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )


_WRITER = """
    import sys
    from sage.platform.stores import SqliteStore
    log = SqliteStore(sys.argv[1]).record_log("l")
    number = 0
    while number < 100_000:
        number = log.append_many([f"{sys.argv[2]}-{number}".encode(), b"second"]).stop
        print(number, flush=True)
"""


def test_every_acknowledged_record_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged = 0
    for attempt in range(3):
        with _start(_WRITER, path, attempt) as writer:
            assert writer.stdout is not None
            for _ in range(20):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            # What it has printed before it died counts as well.
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().split("\n")[:-1])])
        assert writer.returncode == -signal.SIGKILL
        with SqliteStore(path) as opened:
            log = opened.record_log("l")
            numbers = [number for number, _ in log.read()]
            assert numbers == list(range(1, len(numbers) + 1))
            # Both records of an append are there or none.
            assert len(numbers) % 2 == 0
            assert acknowledged - 1 <= len(numbers)
            assert log.next_sequence() == len(numbers) + 1


def test_processes_write_the_same_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store.db"
    code = """
        import sys
        from sage.platform.stores import SqliteStore
        with SqliteStore(sys.argv[1], synchronous="NORMAL", busy_timeout_s=30) as store:
            for i in range(50):
                store.record_log("l").append(f"{sys.argv[2]}-{i}".encode())
    """
    processes = [_start(code, path, name) for name in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=50)
        assert process.returncode == 0, errors
    with SqliteStore(path) as opened:
        records = opened.record_log("l").read()
    assert [number for number, _ in records] == list(range(1, 151))
    for name in range(3):
        mine = [record for _, record in records if record.startswith(f"{name}-".encode())]
        assert mine == [f"{name}-{i}".encode() for i in range(50)]


def test_a_lock_held_too_long_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with SqliteStore(path, busy_timeout_s=0.05) as opened:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(StoreError, match="another process has held the store locked"):
                opened.key_values("a").put("k", b"v")
            assert opened.key_values("a").get("k") is None
        finally:
            other.execute("ROLLBACK")
            other.close()
        opened.key_values("a").put("k", b"v")


def test_a_forked_child_is_told_to_open_its_own(tmp_path: Path) -> None:
    code = """
        import os, sys
        from sage.common.errors import StoreError
        from sage.platform.stores import SqliteStore
        store = SqliteStore(sys.argv[1])
        log = store.record_log("l")
        child = os.fork()
        if child == 0:
            try:
                log.append(b"child")
            except StoreError as error:
                store.close()
                os._exit(7 if "before a fork" in str(error) else 8)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        log.append(b"parent")
        assert log.read() == [(1, b"parent")]
    """
    with _start(code, tmp_path / "store.db") as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors


# --- no room, no permission
# ----------------------------------------------------------------------------------


def _fill(opened: SqliteStore) -> int:
    """Append until the store is full; return how many records were acknowledged."""
    log = opened.record_log("l")
    for count in range(10_000):
        try:
            log.append_many([bytes([count % 256]) * 500, b"second"])
        except StoreFullError:
            return 2 * count
    raise AssertionError("the limit was never reached")


def test_a_full_database_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with SqliteStore(path, synchronous="OFF") as opened:
        opened._connection.execute("PRAGMA max_page_count = 60")
        written = _fill(opened)
        log = opened.record_log("l")
        assert written > 10
        assert log.count() == written
        assert log.next_sequence() == written + 1
        with pytest.raises(StoreFullError, match=r"store\.db: no room"):
            opened.key_values("a").put_many([("small", b"x"), ("big", bytes(500_000))])
        assert opened.key_values("a").count() == 0
        # Removing makes room again.
        log.truncate_before(written + 1)
        assert log.append(b"after") == written + 1


def test_a_file_size_limit_of_the_system_is_reported_as_full(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    code = """
        import resource, sys
        from sage.common.errors import StoreFullError
        from sage.platform.stores import SqliteStore
        store = SqliteStore(sys.argv[1], synchronous="OFF")
        log = store.record_log("l")
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        for count in range(10_000):
            try:
                log.append_many([bytes(500), b"second"])
            except StoreFullError:
                break
        else:
            raise AssertionError("the limit was never reached")
        assert log.count() == 2 * count > 0
        assert len(log.read()) == 2 * count
        print(count)
    """
    with _start(code, path) as process:
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    with SqliteStore(path) as opened:
        log = opened.record_log("l")
        assert log.count() == 2 * int(output)
        assert log.append(b"after") == 2 * int(output) + 1


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root; the file size limit covers the same code")
    try:
        with SqliteStore(disk / "store.db") as opened:
            written = _fill(opened)
            assert written > 10
            assert opened.record_log("l").count() == written
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
        with pytest.raises(StoreFullError), SqliteStore(disk / "second.db"):
            pass
        ballast.unlink()
        with SqliteStore(disk / "store.db") as opened:
            records = opened.record_log("l").read()
        assert [number for number, _ in records] == list(range(1, written + 1))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_read_only_directory_is_a_clear_error() -> None:
    code = """
        import os, sys
        from sage.common.errors import StoreError
        from sage.platform.stores import SqliteStore
        if os.getuid() == 0:
            # Root may write everywhere, so the attempt is made as a user who may not.
            os.setgid(65534)
            os.setuid(65534)
        for name in ("new.db", "old.db", "folder/new.db"):
            try:
                SqliteStore(f"{sys.argv[1]}/{name}")
            except StoreError as error:
                print(error)
    """
    # Not tmp_path, whose parents other users may not enter.
    with tempfile.TemporaryDirectory() as name:
        outer = Path(name)
        outer.chmod(0o755)
        folder = outer / "readonly"
        folder.mkdir()
        SqliteStore(folder / "old.db").close()
        (folder / "old.db").chmod(0o444)
        folder.chmod(0o555)
        try:
            with _start(code, folder) as process:
                output, errors = process.communicate(timeout=30)
        finally:
            folder.chmod(0o755)
        assert output.splitlines() == [
            f"{folder / file}: cannot open the store: permission denied"
            for file in ("new.db", "old.db", "folder/new.db")
        ], errors
