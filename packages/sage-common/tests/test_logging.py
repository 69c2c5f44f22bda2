"""Logging: quiet by default, structured, and without secrets on every way out."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sage.common.errors import InvalidArgumentError
from sage.common.logging import BoundLogger, bind, configure, get_logger, redact, reset


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    yield io.StringIO()
    reset()


def _body(stream: io.StringIO) -> str:
    """What was written, without the time of each line."""
    return "\n".join(line.split(" ", 1)[1] for line in stream.getvalue().splitlines())


def _run(code: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )


def test_without_configuration_only_warnings_reach_stderr() -> None:
    finished = _run(
        "from sage.common.logging import get_logger\n"
        "log = get_logger('demo')\n"
        "log.info('quiet')\n"
        "log.warning('loud, token=abc123')\n"
    )
    assert finished.stdout == ""
    assert finished.stderr == "loud, token=***\n"


def test_an_applications_own_handlers_get_masked_records(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("demo").warning("sent %s", {"authorization": "Bearer abcdef"}, extra={"api_key": "k", "n": 1})
    (record,) = caplog.records
    assert "abcdef" not in record.getMessage()
    assert vars(record)["api_key"] == "***"
    assert vars(record)["n"] == 1


def test_fields_follow_the_message_and_are_quoted_where_needed(stream: io.StringIO) -> None:
    configure("INFO", stream=stream)
    log = get_logger("demo")
    log.debug("hidden")
    log.info("indexed %d", 3, extra={"path": "a b", "n": 2, "text": 'x"=\n', "empty": ""})
    assert _body(stream) == r'INFO sage.demo: indexed 3 path="a b" n=2 text="x\"=\n" empty=""'
    assert stream.getvalue().startswith("20")


def test_control_characters_cannot_forge_lines(stream: io.StringIO) -> None:
    configure("INFO", stream=stream)
    get_logger("demo").info("one\n2024-01-01 ERROR sage: two \x1b[31m")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_bound_fields_join_those_of_the_call(stream: io.StringIO) -> None:
    configure("INFO", stream=stream)
    log = bind(get_logger("demo"), operator="embed", name="n", token="t")
    assert isinstance(log, BoundLogger)
    log.info("started", extra={"attempt": 2, "operator": "other"})
    assert _body(stream) == "INFO sage.demo: started operator=other name=n token=*** attempt=2"


def test_json_lines(stream: io.StringIO) -> None:
    configure("INFO", json=True, stream=stream)
    log = bind(get_logger("demo"), level="clash", where=os)
    try:
        raise ValueError("password=hunter2")
    except ValueError:
        log.exception("failed\nbadly")
    entry = json.loads(stream.getvalue())
    assert (entry["level"], entry["logger"], entry["message"]) == ("ERROR", "sage.demo", "failed\nbadly")
    assert entry["field_level"] == "clash"
    assert "ValueError: password=***" in entry["exception"]
    assert "hunter2" not in stream.getvalue()


def test_configuring_twice_writes_once_and_reset_takes_it_back(caplog: pytest.LogCaptureFixture) -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("INFO", stream=first)
    configure("ERROR", stream=second)
    get_logger("demo").warning("w")
    get_logger("demo").error("e")
    assert (first.getvalue(), second.getvalue().count("\n")) == ("", 1)
    assert caplog.records == []
    reset()
    reset()
    get_logger("demo").error("again")
    assert [record.getMessage() for record in caplog.records] == ["again"]
    assert second.getvalue().count("\n") == 1


def test_stderr_is_looked_up_when_writing(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    try:
        get_logger("demo").warning("here")
    finally:
        reset()
    assert "here" in capsys.readouterr().err


def test_loggers_made_without_us_are_masked_too(stream: io.StringIO) -> None:
    configure("INFO", stream=stream)
    logging.getLogger("sage.elsewhere").info("api_key=%s", "k3y")
    assert "k3y" not in stream.getvalue()


def test_a_broken_message_does_not_stop_the_program(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", stream=stream)
    get_logger("demo").info("%d", "no number")
    get_logger("demo").info("next")
    assert _body(stream) == "INFO sage.demo: next"
    assert "Logging error" in capsys.readouterr().err


@pytest.mark.parametrize("level", ["LOUD", "", -1, True])
def test_unknown_levels_are_refused(level: str | int) -> None:
    with pytest.raises(InvalidArgumentError, match="level must be one of DEBUG"):
        configure(level)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("api_key=abc", "abc"),
        ("OPENAI_API_KEY: abc", "abc"),
        ("{'x-api-key': 'a b c'}", "a b c"),
        ('{"password": "a\'b", "n": 1}', "a'b"),
        ("Authorization: Bearer abc.def-123", "abc.def"),
        ("curl -H 'authorization: Basic dXNlcjpwYXNz'", "dXNlcjpwYXNz"),
        ("postgres://me:hunter2@db/x", "hunter2"),
        ("key sk-abcdefghijklmnop1234 is wrong", "sk-abc"),
        ("client-secret = s", " s"),
        ("access_token=a&x=1", "=a&"),
    ],
)
def test_secrets_in_texts_are_masked(text: str, secret: str) -> None:
    masked = redact(text)
    assert secret not in masked
    assert "***" in masked
    assert redact(masked) == masked


@pytest.mark.parametrize(
    "value",
    [
        "max_tokens=512, tokens: 3",
        "the token was wrong",
        {"tokens": 5, "max_tokens": 1, "tokenizer": "x", "keys": ["a"], "password": None},
        "https://host:8080/path@x",
        ["a", ("b", 1)],
        7,
    ],
)
def test_harmless_values_stay_as_they_are(value: object) -> None:
    assert redact(value) == value


def test_redacting_copies_nested_values() -> None:
    given = {"a": [{"token": "t"}, ("secret=s",)], "X-Api-Key": "k"}
    assert redact(given) == {"a": [{"token": "***"}, ("secret=***",)], "X-Api-Key": "***"}
    assert given["a"][0] == {"token": "t"}


@pytest.mark.parametrize("as_json", [False, True])
def test_a_traceback_that_was_formatted_in_another_process_is_shown_and_masked(
    stream: io.StringIO, as_json: bool
) -> None:
    configure("INFO", json=as_json, stream=stream)
    record = logging.makeLogRecord({"name": "sage.demo", "msg": "failed", "levelno": 40, "levelname": "ERROR"})
    record.exc_text = "Traceback (most recent call last):\nValueError: password=hunter2"
    get_logger("demo").handle(record)
    assert "ValueError: password=***" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
