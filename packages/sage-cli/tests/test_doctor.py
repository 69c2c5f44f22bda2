"""`sage doctor`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sage.cli import ExitCode
from sage.cli.doctor_command import Level, examine, run_doctor

Sage = Callable[..., subprocess.CompletedProcess[str]]


def _by_name(home: Path) -> dict[str, tuple[Level, str, str]]:
    return {finding.what: (finding.level, finding.found, finding.hint) for finding in examine(home)}


def test_every_line_is_there_and_a_warning_has_a_hint(tmp_path: Path) -> None:
    findings = _by_name(tmp_path)
    expected = [
        "python",
        "platform",
        "sage-common",
        "sage-platform",
        "sage-kernel",
        "sage-middleware",
        "sage-cli",
    ]
    expected += ["native", "machine", "compiler", "sqlite", "minilm", "chroma", "llm server", "home"]
    assert list(findings) == expected
    for what, (level, found, hint) in findings.items():
        assert found, what
        assert (level is Level.OK) == (not hint), what
    assert not any(tmp_path.iterdir())  # looking leaves nothing behind


def test_the_key_of_the_server_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://me:hunter2@host.example/v1?api_key=k-4711")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-indeed-0123456789")
    run_doctor(tmp_path)
    printed = capsys.readouterr().out
    assert "host.example/v1" in printed
    assert "OPENAI_API_KEY is set" in " ".join(printed.split())
    assert not [secret for secret in ("hunter2", "4711", "very-secret") if secret in printed]


def test_a_home_that_cannot_be_used_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    level, found, hint = _by_name(tmp_path / "file" / "home")["home"]
    assert level is Level.FAIL
    assert "is not a folder" in found
    assert hint
    assert run_doctor(tmp_path / "file" / "home") is ExitCode.FAILED
    level, found, _ = _by_name(Path("/proc/self/new"))["home"]
    assert level is Level.FAIL
    assert "cannot be written" in found


def test_the_command(sage: Sage) -> None:
    wrong = sage("doctor", env={"SAGE_SIMD": "abacus"})
    assert wrong.returncode == 3
    assert "unset SAGE_SIMD" in " ".join(wrong.stdout.split())
    done = sage("doctor")
    assert done.stderr == ""
    assert done.returncode == (3 if "\nfail" in done.stdout else 0)
