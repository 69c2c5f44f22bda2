"""The leak check of the root conftest.py: what leaves something behind fails, what cleans up passes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

CONFTEST = Path(__file__).resolve().parents[2] / "conftest.py"

SETUP = """
import os, subprocess, sys, threading
import pytest

stop = threading.Event()
kept = []

@pytest.fixture(scope="module")
def server():
    thread = threading.Thread(target=stop.wait, name="sage-server")
    thread.start()
    yield
    stop.set()
    thread.join()
"""

LEAKS = {
    "a thread": ("threading.Thread(target=stop.wait, args=(20,), name='worker').start()", r"thread 'worker'"),
    "a daemon of ours": (
        "threading.Thread(target=stop.wait, name='sage-embed-0', daemon=True).start()",
        r"thread 'sage-embed-0'",
    ),
    "a descriptor": ("kept.append(os.open('/dev/null', os.O_RDONLY))", r"descriptor \d+: /dev/null"),
    "a pipe": ("kept.append(os.pipe())", r"descriptor \d+: pipe:"),
    "a process": (
        "kept.append(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(4)']))",
        r"process \d+: .*time\.sleep",
    ),
}

CLEAN = {
    "nothing": "pass",
    "a joined thread": "t = threading.Thread(target=int); t.start(); t.join()",
    "a thread that ends soon": "threading.Thread(target=stop.wait, args=(0.2,)).start()",
    "a daemon of others": "threading.Thread(target=stop.wait, name='watchdog', daemon=True).start()",
    "a file in a cycle": "loop = [open('/dev/null')]; loop.append(loop)",
    "a process that was waited for": "subprocess.run([sys.executable, '-c', ''], check=True)",
}


WIDER_SCOPE = """
def test_what_a_wider_fixture_holds(server):
    assert not stop.is_set()
"""

MARKED = """
@pytest.mark.leaks("wanted here")
def test_marked():
    kept.append(os.open("/dev/null", os.O_RDONLY))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Test name -> what was reported, "" for a pass; from one run under a copy of the real conftest."""
    folder = tmp_path_factory.mktemp("leaks")
    conftest = CONFTEST.read_text()
    assert "GRACE_S = 2.0" in conftest
    (folder / "conftest.py").write_text(conftest.replace("GRACE_S = 2.0", "GRACE_S = 0.5"))
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = leaks(reason): exempt\n")
    bodies = {**{name: leak[0] for name, leak in LEAKS.items()}, **CLEAN}
    tests = "".join(f"\ndef test_{name.replace(' ', '_')}():\n    {body}\n" for name, body in bodies.items())
    (folder / "test_it.py").write_text(f"{SETUP}{tests}{WIDER_SCOPE}{MARKED}\ndef test_last():\n    stop.set()\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--junit-xml=out.xml",
        "test_it.py",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 1, done.stdout + done.stderr
    cases = ET.parse(folder / "out.xml").iter("testcase")
    return {case.attrib["name"]: "".join(part.text or "" for part in case) for case in cases}


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_fails_the_test(outcomes: dict[str, str], name: str) -> None:
    report = outcomes[f"test_{name.replace(' ', '_')}"]
    assert "the test leaves behind:" in report
    assert re.search(LEAKS[name][1], report), report


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_test_passes(outcomes: dict[str, str], name: str) -> None:
    assert outcomes[f"test_{name.replace(' ', '_')}"] == ""


def test_what_a_wider_fixture_holds_is_no_leak(outcomes: dict[str, str]) -> None:
    assert outcomes["test_what_a_wider_fixture_holds"] == ""


def test_the_mark_exempts(outcomes: dict[str, str]) -> None:
    assert outcomes["test_marked"] == ""
