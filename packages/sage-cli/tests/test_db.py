"""`sage db`: every command, its exit codes, and what it says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sage.middleware.components import sage_db
from sage.middleware.embeddings import create_embedder

Sage = Callable[..., subprocess.CompletedProcess[str]]
TEXTS = ["The router sends packets.", "A cat sleeps on the mat.", "Packets wait in a queue."]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with sage_db.open(tmp_path / "db") as database:
        made = database.create_collection("notes", 64)
        vectors = create_embedder({"model": "hashing", "dimension": 64}).embed(TEXTS)
        made.add(["a", "b", "c"], vectors, metadata=[{"year": 2019 + n} for n in range(3)], texts=TEXTS)
    return tmp_path / "db"


def test_info(sage: Sage, folder: Path) -> None:
    shown = sage("db", "info", folder)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "notes" in shown.stdout
    assert "year (int)" in shown.stdout
    found = json.loads(sage("db", "info", folder, "--json").stdout)
    (notes,) = found["collections"]
    assert (notes["documents"], notes["dimension"], notes["metric"]) == (3, 64, "cosine")


def test_search(sage: Sage, folder: Path) -> None:
    done = sage("db", "search", folder, "Who sends packets?", "--json", "-k", "2")
    hits = [json.loads(line) for line in done.stdout.splitlines()]
    assert [hit["id"] for hit in hits] == ["a", "c"]
    assert hits[0]["text"] == TEXTS[0]
    assert sage("db", "search", folder, "packets", "--where", '{"year": {"$gte": 2020}}').stdout.split()[1] == "c"
    assert "b  A cat sleeps" in sage("db", "search", folder, "cat", "--mode", "text").stdout
    vector = json.dumps([1.0] * 64)
    assert len(sage("db", "search", folder, "--vector", vector).stdout.splitlines()) == 3
    assert "index: " in sage("db", "search", folder, "cat", "--explain").stdout
    assert json.loads(sage("db", "search", folder, "cat", "--explain", "--json").stdout)["plan"] == "none"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "nothing"], "there is no folder 'nothing'"),
        (["search", "db"], "a search needs a QUERY or a --vector"),
        (["search", "db", "x", "--mode", "magic"], "--mode must be hybrid, vector or text"),
        (["search", "db", "x", "--where", "{"], "--where must be JSON"),
        (["search", "db", "x", "--where", "[]"], "--where must be a JSON object"),
        (["search", "db", "x", "--where", '{"yaer": 1}'], "year"),
        (["search", "db", "--vector", "[1, 2]"], "one vector of 64 numbers"),
        (["search", "db", "--vector", '["a"]'], "a JSON list of numbers"),
        (["search", "db", "x", "-c", "note"], "notes"),
        (["import", "db", "nothing.npz"], "there is no file 'nothing.npz'"),
        (["export", "db", "x.txt"], "does not tell its format"),
        (["verify", "nothing"], "nothing"),
        (["compact", "nothing"], "there is no folder 'nothing'"),
    ],
)
def test_wrong_usage_is_told_in_one_line(sage: Sage, folder: Path, arguments: list[str], message: str) -> None:
    done = sage("db", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_command(sage: Sage) -> None:
    done = sage("db")
    assert done.returncode == 2
    assert "compact" in done.stdout


def test_export_import_verify_compact(sage: Sage, folder: Path, tmp_path: Path) -> None:
    assert "3 documents of collection 'notes' written to out.jsonl" in sage("db", "export", folder, "out.jsonl").stdout
    again = sage("db", "export", folder, "out.jsonl")
    assert (again.returncode, "is there already" in again.stderr) == (3, True)
    done = sage("db", "import", "new", "out.jsonl", "-c", "copy", "--metric", "l2", "--json")
    assert json.loads(done.stdout) == {"imported": 3, "collection": "copy"}
    assert done.stderr == ""  # no progress without a terminal
    verified = sage("db", "verify", "new")
    assert (verified.returncode, verified.stdout) == (0, "no damage: 1 collection, 3 documents, 0 records in the log\n")
    compacted = json.loads(sage("db", "compact", "new", "--json").stdout)
    assert compacted["log_bytes"] == 0
    shown = json.loads(sage("db", "info", "new", "--json").stdout)
    assert shown["snapshot_bytes"] == compacted["snapshot_bytes"] > 0
    with sage_db.open(tmp_path / "new") as database:
        assert database.collection("copy").metric == "l2"
        assert len(database.collection("copy")) == 3


def test_damage_has_exit_code_3(sage: Sage, folder: Path) -> None:
    (snapshot,) = folder.glob("snapshot-*")
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 1
    snapshot.write_bytes(content)
    done = sage("db", "verify", folder)
    assert (done.returncode, done.stdout) == (3, "")
    assert "snapshot-" in done.stderr


def test_a_database_that_somebody_writes(sage: Sage, folder: Path) -> None:
    with sage_db.open(folder) as database:
        database.collection("notes").add(["d"], np.ones((1, 64)))
        assert sage("db", "info", folder).returncode == 0
        refused = sage("db", "compact", folder)
    assert refused.returncode == 3
    assert "process" in refused.stderr
