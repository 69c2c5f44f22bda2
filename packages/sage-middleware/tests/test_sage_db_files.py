"""sage_db on disk: kill -9, a second process, fork, a full disk, damage, 10,000 collections; and the stubs."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sage.common.errors import InvalidArgumentError, SageError, StoreError, StoreFullError
from sage.middleware import _vdb
from sage.middleware.components import sage_db

WRITER = """
    import sys
    import numpy as np
    from sage.middleware.components import sage_db
    database = sage_db.open(sys.argv[1], sync=sys.argv[2], checkpoint_log_bytes=200_000)
    notes = database.get_or_create_collection("notes", 8)
    first = len(notes)
    while True:
        ids = np.arange(first, first + 10)
        vectors = np.repeat(ids[:, None], 8, axis=1).astype(np.float32)
        notes.add(ids, vectors, metadata=[{"n": int(n)} for n in ids], texts=[f"text {n}" for n in ids])
        first += 10
        print(first, flush=True)
"""


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("sync", ["each", "group", "none"])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, sync: str) -> None:
    acknowledged = 0
    for _ in range(3):
        with python(WRITER, tmp_path / "db", sync) as writer:
            assert writer.stdout is not None
            for _ in range(15):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout:
                acknowledged = int(line)
        with sage_db.open(tmp_path / "db") as database:
            notes = database.collection("notes")
            count = len(notes)
            # A batch that was under way may be there, whole.
            assert acknowledged <= count <= acknowledged + 10
            assert count % 10 == 0
            for place, each in enumerate(notes.documents(include=["metadata", "text", "vectors"])):
                assert (each.id, each.metadata, each.text) == (place, {"n": place}, f"text {place}")
                assert each.vectors is not None
                np.testing.assert_allclose(each.vectors, np.full((1, 8), place), rtol=1e-6)
            acknowledged = count


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with sage_db.open(tmp_path / "db") as database:
        database.create_collection("a", 1).add([1], [[1.0]])
        code = """
            import sys
            from sage.middleware.components import sage_db
            print(len(sage_db.open(sys.argv[1], read_only=True).collection("a")))
            sage_db.open(sys.argv[1])
        """
        with python(code, tmp_path / "db") as other:
            out, error = other.communicate(timeout=30)
        assert out == "1\n"
        assert "StoreError" in error
        assert str(os.getpid()) in error
    with python(code, tmp_path / "db") as other:
        assert other.communicate(timeout=30) == ("1\n", "")


def test_reading_only(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="db"):
        sage_db.open(tmp_path / "db", read_only=True)
    assert not (tmp_path / "db").exists()
    with sage_db.open(tmp_path / "db") as database:
        database.create_collection("a", 1)
    with sage_db.open(tmp_path / "db", read_only=True) as database:
        with pytest.raises(InvalidArgumentError, match="read only"):
            database.create_collection("b", 1)
        with pytest.raises(InvalidArgumentError, match="read only"):
            database.collection("a").add([1], [[1.0]])


def test_a_forked_child_reads_and_cannot_write(tmp_path: Path) -> None:
    # In a process of its own: pytest's has threads that a child would lack.
    code = """
        import os, sys
        from sage.middleware.components import sage_db
        from sage.common.errors import StoreError
        database = sage_db.open(sys.argv[1])
        notes = database.create_collection("notes", 1)
        notes.add([1], [[1.0]])
        child = os.fork()
        if child == 0:
            code = 1
            try:
                assert notes.search([1.0], 1).ids.tolist() == [1]
                notes.add([2], [[1.0]])
            except StoreError as error:
                code = 0 if "fork" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        notes.add([2], [[1.0]])
        database.close()
    """
    with python(code, tmp_path / "db") as parent:
        assert parent.communicate(timeout=30) == ("", "")
    assert parent.returncode == 0
    with sage_db.open(tmp_path / "db") as database:
        assert len(database.collection("notes")) == 2


def test_a_full_disk_refuses_and_changes_nothing(tmp_path: Path) -> None:
    code = """
        import resource, signal, sys
        import numpy as np
        from sage.common.errors import StoreFullError
        from sage.middleware.components import sage_db
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        database = sage_db.open(sys.argv[1], checkpoint_at_close=False, background=False)
        notes = database.create_collection("notes", 64)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        count = 0
        try:
            while True:
                notes.add(np.arange(count, count + 100), np.ones((100, 64), np.float32))
                count += 100
        except StoreFullError as error:
            assert len(notes) == count > 0, (len(notes), count)
            assert notes.search(np.ones(64), 1).scores[0] > 0.99
            print(count)
    """
    with python(code, tmp_path / "db") as writer:
        out, error = writer.communicate(timeout=30)
    assert error == ""
    with sage_db.open(tmp_path / "db") as database:
        assert len(database.collection("notes")) == int(out)


def test_damage_and_foreign_folders_are_told(tmp_path: Path) -> None:
    with sage_db.open(tmp_path / "db") as database:
        database.create_collection("a", 4).add(np.arange(100), np.ones((100, 4)))
    (snapshot,) = (tmp_path / "db").glob("snapshot-*")
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 4
    snapshot.write_bytes(content)
    with pytest.raises(StoreError, match="snapshot-"):
        sage_db.verify(tmp_path / "db")
    with pytest.raises(StoreError, match="snapshot-"):
        sage_db.open(tmp_path / "db")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SageError, match="file"):
        sage_db.open(tmp_path / "file")
    with pytest.raises(SageError):
        sage_db.verify(tmp_path / "nothing")
    assert issubclass(StoreFullError, StoreError)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"is no store and not empty, it holds 'letters.txt'"):
        sage_db.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_ten_thousand_collections(tmp_path: Path) -> None:
    count, began = 10_000, time.monotonic()
    with sage_db.open(tmp_path / "db", sync="none") as database:
        for number in range(count):
            collection = database.create_collection(f"c{number}", 4)
            if number % 100 == 0:
                collection.add([number], [[1.0, 2.0, 3.0, 4.0]])
    with sage_db.open(tmp_path / "db") as database:
        assert len(database.collection_names()) == count
        assert sum(len(each) for each in database) == count // 100
        assert database.collection("c9900").search([1, 2, 3, 4], 3).ids.tolist() == [9900]
    assert time.monotonic() - began < 45


def test_one_collection_is_backed_up_alone(tmp_path: Path) -> None:
    with sage_db.open(tmp_path / "db") as database:
        for name in ("notes", "others"):
            database.create_collection(name, 2).add([f"{name} 1"], [[3.0, 4.0]], texts=[name])
        notes = database.collection("notes")
        notes.backup(tmp_path / "copy")
        with pytest.raises(SageError, match="copy"):
            notes.backup(tmp_path / "copy")
        with sage_db.open(tmp_path / "copy") as copy:
            assert copy.collection_names() == ["notes"]
            assert [each.text for each in copy.collection("notes").documents()] == ["notes"]
        database.drop_collection("notes")
        with pytest.raises(InvalidArgumentError, match="'notes' was dropped"):
            notes.backup(tmp_path / "late")
    assert not (tmp_path / "late").exists()


def test_what_is_restored_is_there_as_a_whole(tmp_path: Path) -> None:
    source = sage_db.memory()
    for name in ("a", "b"):
        source.create_collection(name, 2, metric="l2").add(np.arange(2000), np.ones((2000, 2)), texts=["new"] * 2000)
    state = source.get_state()
    with sage_db.open(tmp_path / "db", checkpoint_at_close=False) as database:
        old = database.create_collection("a", 2, metric="l2")
        old.add([1], [[1.0, 2.0]], texts=["old"])
        database.create_collection("c", 2)
        with pytest.raises(StoreError):
            database.restore_state(state[:-20_000] + bytes(20_000))
        assert database.collection_names() == ["a", "c"]
        seen: set[tuple[str, ...]] = set()
        ready, stop = threading.Event(), threading.Event()

        def read() -> None:
            while not stop.is_set():
                seen.add(tuple(database.collection_names()))
                ready.set()

        reader = threading.Thread(target=read)
        reader.start()
        ready.wait()
        database.restore_state(state)
        stop.set()
        reader.join()
        assert seen <= {("a", "c"), ("a", "b")}
        assert old.get([1])[0].text == "old"
        with pytest.raises(InvalidArgumentError, match="dropped"):
            old.add([2], [[1.0, 2.0]])
        database.collection("a").add([5000], [[1.0, 2.0]])
    with sage_db.open(tmp_path / "db") as database:
        assert database.collection_names() == ["a", "b"]
        assert [len(each) for each in database] == [2001, 2000]


@pytest.mark.parametrize("scale", [1.0, 1e-30, 37.25, 1e15])
def test_cosine_gives_back_every_bit(tmp_path: Path, scale: float) -> None:
    vectors = (np.random.default_rng(3).standard_normal((1500, 24)) * scale).astype(np.float32)
    unit = (vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)
    with sage_db.open(tmp_path / "db") as database:
        for name, rows in (("given", vectors), ("unit", unit)):
            database.create_collection(name, 24, index="graph").add(np.arange(1500), rows)
    with sage_db.open(tmp_path / "db") as database:
        for name, rows in (("given", vectors), ("unit", unit)):
            found = database.collection(name).get(np.arange(1500), include=["vectors"]).vectors
            assert found is not None
            np.testing.assert_array_equal(found.view(np.uint32), rows.view(np.uint32))
            best = database.collection(name).search(rows[7], k=1)
            assert best.ids.tolist() == [7]
            assert abs(best.scores[0] - 1.0) < 2e-6


def test_writing_goes_on_during_checkpoints(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    with sage_db.open(tmp_path / "db", sync="none", checkpoint_at_close=False) as database:
        large = database.create_collection("large", 256, metric="l2", index="flat")
        for first in range(0, 20_000, 5_000):
            large.add(np.arange(first, first + 5_000), rng.standard_normal((5_000, 256), dtype=np.float32))
        small = database.create_collection("small", 2, metric="l2")
        written, worst, stop = 0, 0.0, threading.Event()

        def write() -> None:
            nonlocal written, worst
            while not stop.is_set():
                began = time.perf_counter()
                small.add([written], [[1.0, 2.0]])
                worst = max(worst, time.perf_counter() - began)
                written += 1
                time.sleep(0.0005)

        writer = threading.Thread(target=write)
        writer.start()
        began = time.perf_counter()
        before = written
        for _ in range(3):
            database.checkpoint()
        took, during = time.perf_counter() - began, written - before
        stop.set()
        writer.join()
        # Each write takes its turn between the parts of a checkpoint, not behind all of it.
        assert during >= 5, (took, worst)
        assert database.stats()["generation"] >= 3
    with sage_db.open(tmp_path / "db") as database:
        assert len(database.collection("small")) == written
        assert len(database.collection("large")) == 20_000


def test_backup_while_writing(tmp_path: Path) -> None:
    with sage_db.open(tmp_path / "db") as database:
        notes = database.create_collection("notes", 4)
        notes.add(np.arange(50), np.ones((50, 4)))
        database.backup(tmp_path / "copy")
        notes.add([50], np.ones((1, 4)))
        with pytest.raises(SageError, match="copy"):
            database.backup(tmp_path / "copy")
        with sage_db.open(tmp_path / "copy") as copy:
            assert len(copy.collection("notes")) == 50
            copy.collection("notes").delete(np.arange(50))
        assert len(notes) == 51


# --- The stubs --------------------------------------------------------------------------------------------------------


def stub_classes() -> dict[str, ast.ClassDef]:
    path = Path(__file__).parents[1] / "src/sage/middleware/_vdb.pyi"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize("name", ["Filter", "Collection", "Database", "SearchPages"])
def test_the_stub_has_the_arguments_of_the_module(name: str) -> None:
    native: Any = getattr(_vdb, name)
    for node in stub_classes()[name].body:
        if not isinstance(node, ast.FunctionDef) or any(
            isinstance(each, ast.Name) and each.id == "property" for each in node.decorator_list
        ):
            continue
        signature = str(getattr(native, node.name).__doc__).splitlines()[0]
        arguments = [each.arg for each in node.args.args if each.arg != "self"]
        assert [f"{each}:" in signature for each in arguments] == [True] * len(arguments), signature
        assert signature.count(": ") == len(arguments) + ("self:" in signature), signature
        defaults = len(node.args.defaults)
        assert signature.count(" = ") == defaults, signature


@pytest.mark.parametrize(
    ("index", "storage"),
    [
        ("flat", "float32"),
        ("flat", "int8"),
        ("hnsw", "float16"),
        ("ivf_flat", "float32"),
        ("graph", "float16"),
        ("flat", "bit1"),
    ],
)
def test_every_index_is_kept_and_finds_most(tmp_path: Path, index: str, storage: str) -> None:
    random = np.random.default_rng(3)
    centres = random.standard_normal((20, 32))
    rows = (centres[random.integers(0, 20, 3000)] + 0.5 * random.standard_normal((3000, 32))).astype(np.float32)
    with sage_db.open(tmp_path / "db", sync="none") as database:
        made = database.create_collection("c", 32, metric="l2", index=index, storage=storage)
        made.add(np.arange(3000), rows)
        made.compact()
        made.delete(np.arange(0, 3000, 10))
        options = made.options
    with sage_db.open(tmp_path / "db") as database:
        kept = database.collection("c")
        assert kept.options == options
        assert (kept.options["index"], kept.options["storage"], len(kept)) == (index, storage, 2700)
        found = 0
        for query in rows[1:200:10]:
            distances = ((rows - query) ** 2).sum(axis=1)
            distances[::10] = np.inf
            found += len(set(np.argsort(distances)[:10].tolist()) & set(kept.search(query, 10).ids.tolist()))
        assert found >= 0.8 * 200


def test_other_threads_run_while_a_search_works() -> None:
    """The GIL is not held: a counter goes on during one long call."""
    rows = np.random.default_rng(0).standard_normal((20_000, 64)).astype(np.float32)
    collection = sage_db.memory(background=False).create_collection("c", 64, index="flat")
    collection.add(np.arange(len(rows)), rows)
    ticks: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(0.001):
            ticks.append(time.perf_counter())

    ticker = threading.Thread(target=tick)
    ticker.start()
    began = time.perf_counter()
    collection.search_many(rows[:1500], 10, threads=1)
    ended = time.perf_counter()
    stop.set()
    ticker.join()
    assert sum(began < each < ended for each in ticks) >= 3
