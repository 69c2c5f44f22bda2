"""tools/callgrind.py: what it calls worse, and what it says when it cannot compare."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "callgrind.py"
TABLE = TOOL.parents[1] / "cpp/common/bench/kernel_counts.json"
COUNTS = {"scalar/cosine/100": 1000, "avx2/cosine/100": 100_000}


@pytest.fixture
def tool() -> ModuleType:
    specification = importlib.util.spec_from_file_location("callgrind", TOOL)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_three_percent_more_is_worse(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.compare(COUNTS, COUNTS) == []
    assert tool.compare(COUNTS, COUNTS | {"avx2/cosine/100": 102_900}) == []
    (line,) = tool.compare(COUNTS, COUNTS | {"avx2/cosine/100": 103_100})
    assert line == "avx2/cosine/100: 100,000 -> 103,100 instructions (+3.1%)"
    assert capsys.readouterr().out == ""
    assert tool.compare(COUNTS, COUNTS | {"avx2/cosine/100": 90_000}) == []
    assert capsys.readouterr().out == "fewer: avx2/cosine/100: 100,000 -> 90,000 instructions (-10.0%)\n"


def test_a_kernel_that_comes_or_goes_is_told(tool: ModuleType) -> None:
    assert tool.compare(COUNTS, {"avx2/cosine/100": 100_000}) == ["scalar/cosine/100: not in the program"]
    assert tool.compare({}, {"a/b/1": 1}) == ["a/b/1: not in the table"]


def fake_valgrind(folder: Path, compiler: str, counts: dict[str, int]) -> Path:
    """A program called valgrind that writes what Callgrind would."""
    program = folder / "valgrind"
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "out = next(each.split('=', 1)[1] for each in sys.argv if each.startswith('--callgrind-out-file='))\n"
        f"print({compiler!r})\n"
        f"for number, (name, count) in enumerate({counts!r}.items(), 1):\n"
        "    print(name)\n"
        "    open(f'{out}.{number}', 'w').write(f'part: 1\\nsummary: {count}\\n')\n",
        encoding="utf-8",
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_the_gate_as_it_is_called(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "counts.json"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    fake_valgrind(tmp_path, "GNU 12", COUNTS)
    assert tool.main(["program", str(table)]) == 2  # no table yet
    assert tool.main(["program", str(table), "--renew"]) == 0
    assert json.loads(table.read_text()) == {"GNU 12": COUNTS}
    assert tool.main(["program", str(table)]) == 0
    fake_valgrind(tmp_path, "GNU 12", COUNTS | {"scalar/cosine/100": 1100})
    assert tool.main(["program", str(table)]) == 1
    assert "more: scalar/cosine/100: 1,000 -> 1,100 instructions (+10.0%)" in capsys.readouterr().out
    fake_valgrind(tmp_path, "Clang 99", COUNTS)
    assert tool.main(["program", str(table)]) == 2
    assert "no counts of Clang 99" in capsys.readouterr().out
    fake_valgrind(tmp_path, "GNU 12", {"scalar/cosine/100": 1000})
    assert tool.main(["program", str(table)]) == 2
    assert "offer other levels" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "/nowhere")
    assert tool.main(["program", str(table)]) == 2
    assert "valgrind is not on the PATH" in capsys.readouterr().err


def test_the_table_has_every_kernel_of_both_levels() -> None:
    for compiler, counts in json.loads(TABLE.read_text(encoding="utf-8")).items():
        scalar = {name.partition("/")[2] for name in counts if name.startswith("scalar/")}
        assert scalar == {name.partition("/")[2] for name in counts if name.startswith("avx2/")}, compiler
        assert len(scalar) >= 72
        assert min(counts.values()) > 0
