"""The client of OpenAI-compatible servers against a real HTTP server, which misbehaves on demand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from sage.common.errors import ConfigError
from sage.middleware.errors import BackendResponseError, GenerationError
from sage.middleware.operators.llm import BackendConfig, Generation, GenerationRequest, OpenAIBackend
from sage.middleware.operators.llm.openai import _retry_after_s

KEY = "sk-very-secret-1234567890"
Reply = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Speaks the API; `script` holds the replies to come, each used once, before the usual one."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.now = 0
        self.peak = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {
        "content-length": str(len(body)),
        "content-type": "application/json",
        **headers,
    }.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append({"path": self.path, "headers": dict(self.headers), "body": None})
        self.server.script.pop(0)(self)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
            reply = self.server.script.pop(0) if self.server.script else usual
            self.server.now += 1
            self.server.peak = max(self.server.peak, self.server.now)
        try:
            # The client hangs up on purpose in several tests.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                reply(self)
        finally:
            with self.server.lock:
                self.server.now -= 1


def usual(handler: BaseHTTPRequestHandler) -> None:
    body = handler.server.requests[-1]["body"]  # type: ignore[attr-defined]
    text = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
    choice = (
        {"text": f"echo: {text}"}
        if "prompt" in body
        else {"message": {"role": "assistant", "content": f"echo: {text}"}}
    )
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "details": None}
    answer = {
        "model": body["model"] + "-v1",
        "choices": [{**choice, "finish_reason": "stop"}],
        "usage": usage,
    }
    send(handler, 200, json.dumps(answer).encode())


def refusing(status: int, body: bytes = b'{"error": "busy"}', **headers: str) -> Reply:
    return lambda handler: send(handler, status, body, **headers)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join(timeout=10)


def ask(server: Server, **config: Any) -> Generation:
    settings = {"model_path": "tiny", "retries": 2, "retry_delay_s": 0.01, "timeout_s": 5.0, **config}
    backend = OpenAIBackend(BackendConfig(**settings), server.url)
    return asyncio.run(backend.generate(GenerationRequest("Why?", "Q: Why?", ())))


def failure(server: Server, kind: type[GenerationError] = GenerationError, **config: Any) -> str:
    with pytest.raises(kind) as caught:
        ask(server, **config)
    assert KEY not in repr(caught.value)
    return str(caught.value)


def test_a_chat(server: Server) -> None:
    made = ask(server, system_prompt="Be brief.", temperature=0.5, max_tokens=9, stop=["\n"], seed=1)
    assert made == Generation(
        "echo: Q: Why?", "tiny-v1", None, {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, ""
    )
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["headers"]["authorization"] == f"Bearer {KEY}"
    assert request["body"] == {
        "model": "tiny",
        "temperature": 0.5,
        "max_tokens": 9,
        "stream": False,
        "stop": ["\n"],
        "seed": 1,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q: Why?"}],
    }


def test_completions_and_no_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ask(server, endpoint="completions").text == "echo: Q: Why?"
    assert server.requests[0]["path"] == "/v1/completions"
    assert "authorization" not in server.requests[0]["headers"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: Server, status: int) -> None:
    server.script = [refusing(status)] * 2
    assert ask(server).text == "echo: Q: Why?"
    assert len(server.requests) == 3


def test_retries_end(server: Server) -> None:
    server.script = [refusing(503, b"overloaded")] * 9
    message = failure(server, BackendResponseError)
    assert message == f"{server.url}/chat/completions: HTTP 503: overloaded (3 attempts)"
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 301])
def test_a_refusal_is_final_and_the_key_is_blotted_out(server: Server, status: int) -> None:
    server.script = [refusing(status, f"Incorrect API key provided: {KEY}, see the docs".encode())]
    message = failure(server, BackendResponseError)
    assert f"HTTP {status}: Incorrect API key provided: ***, see the docs" in message
    assert len(server.requests) == 1


SECRET = "sk-verysecret-0123456789"


@pytest.mark.parametrize(
    "value", [f"{SECRET}\nsecond-line", f"{SECRET}\u2019", f"{SECRET}\x7f", f"{SECRET} x", f"a\r{SECRET}"]
)
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ConfigError, match="MY_KEY must be printable ASCII") as caught:
        OpenAIBackend(BackendConfig(model_path="m", api_key_env="MY_KEY"), "http://localhost:1/v1")
    assert "verysecret" not in "".join(traceback.format_exception(caught.value))


def test_whitespace_around_the_key_is_left_out(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\r\n")
    ask(server)
    assert server.requests[0]["headers"]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("hops", [0, 1])
def test_no_error_of_the_http_library_is_chained(server: Server, monkeypatch: pytest.MonkeyPatch, hops: int) -> None:
    def leak(*args: object, **kwargs: object) -> None:
        raise httpx.LocalProtocolError(f"Illegal header value b'Bearer {KEY}'")

    monkeypatch.setattr(httpx.AsyncClient, "stream", leak)
    with pytest.raises(GenerationError, match=r"Bearer \*\*\*") as caught:
        ask(server, retries=hops)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_key_in_a_long_or_escaped_answer_is_blotted_out(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script = [refusing(401, b" " * 1190 + KEY.encode())]  # begins before an excerpt's end, ends behind it
    assert KEY[:8] not in failure(server)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-abc/def/0123")
    server.script = [refusing(401, rb'{"key": "sk-abc\/def\/0123"}')]
    assert '{"key": "***"}' in failure(server)


def test_the_model_is_the_named_one_or_the_servers_first(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.delenv("OPENAI_MODEL", raising=False)
    server.script = [refusing(200, b'{"data": [{"id": "big"}, {"id": "small"}]}')]
    assert ask(server, model_path=None).model == "big-v1"
    assert server.requests[0]["path"] == "/v1/models"
    assert server.requests[0]["headers"]["authorization"] == f"Bearer {KEY}"
    assert f"model: big (the first that {server.url}/models lists: big, small)" in caplog.text
    monkeypatch.setenv("OPENAI_MODEL", "mine")
    assert ask(server, model_path=None).model == "mine-v1"
    assert ask(server).model == "tiny-v1"


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (refusing(404, KEY.encode()), "HTTP 404"),
        (refusing(200, b"<html>"), "not JSON"),
        (refusing(200, b'{"data": 3}'), "no list of models"),
        (refusing(200, b'{"data": [{"id": 3}, 7]}'), "the list is empty"),
    ],
)
def test_a_server_that_lists_no_model_is_told(
    server: Server, monkeypatch: pytest.MonkeyPatch, reply: Reply, message: str
) -> None:
    monkeypatch.delenv("OPENAI_MODEL", raising=False)
    server.script = [reply]
    with pytest.raises(ConfigError) as caught:
        ask(server, model_path=None)
    assert message in str(caught.value)
    assert "OPENAI_MODEL" in str(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_an_address_with_a_wrong_port_is_told_without_the_password() -> None:
    with pytest.raises(ConfigError, match="must look like") as caught:
        OpenAIBackend(BackendConfig(model_path="m"), "http://me:hunter2@host:eighty/v1")
    assert "hunter2" not in str(caught.value)


def test_retry_after_is_honoured_up_to_the_longest_pause(server: Server) -> None:
    server.script = [refusing(429, retry_after="1")]
    start = time.monotonic()
    ask(server, retry_delay_s_max=0.3)
    assert 0.3 <= time.monotonic() - start < 0.9
    server.script = [refusing(429, retry_after="0")]
    ask(server, retry_delay_s=0.01)
    assert _retry_after_s("120") == 120
    assert 50 < (_retry_after_s(formatdate(time.time() + 60, usegmt=True)) or 0) <= 60
    assert _retry_after_s(formatdate(0, usegmt=True)) == 0
    assert [_retry_after_s(value) for value in ("soon", "", "-1", None, "1.5")] == [None] * 5


def slow_body(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    for _ in range(20):  # a byte now and then: no single read is ever late
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)
    handler.close_connection = True


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.5)
    handler.close_connection = True


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def half_a_body(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


@pytest.mark.parametrize("reply", [slow_body, silent])
def test_a_slow_server_is_given_up_on(server: Server, reply: Reply) -> None:
    server.script = [reply] * 2
    start = time.monotonic()
    message = failure(server, timeout_s=0.2, retries=1)
    assert "no answer within 0.2 s (timeout_s) (2 attempts)" in message
    assert time.monotonic() - start < 5
    server.script = [reply]
    assert ask(server, timeout_s=0.3).text == "echo: Q: Why?"


@pytest.mark.parametrize("reply", [hang_up, half_a_body])
def test_a_lost_connection_is_tried_again(server: Server, reply: Reply) -> None:
    server.script = [reply, reply]
    assert ask(server).text == "echo: Q: Why?"
    server.script = [reply] * 3
    assert "connection failed" in failure(server)


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://user:password@127.0.0.1:{port}/v1"
    backend = OpenAIBackend(BackendConfig(model_path="m", retries=0), url)
    with pytest.raises(GenerationError) as caught:
        asyncio.run(backend.generate(GenerationRequest("q", "q")))
    assert f"http://127.0.0.1:{port}/v1/chat/completions: connection failed" in str(caught.value)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>not json", "the response is not JSON"),
        (b"", "the response is not JSON"),
        (b"[" * 100_000, "the response is not JSON"),
        (b"{}", "no text in choices[0]: {}"),
        (b'{"choices": []}', "no text in choices[0]"),
        (b'{"choices": [{"message": {"content": null}}]}', "no text in choices[0]"),
        (b'{"choices": [{"message": {"content": 3}}]}', "no text in choices[0]"),
        (b'["choices"]', "no text in choices[0]"),
    ],
)
def test_what_is_no_answer_is_told(server: Server, body: bytes, message: str) -> None:
    server.script = [refusing(200, body)]
    assert message in failure(server, BackendResponseError)


def test_an_oversize_response_is_cut_short(server: Server) -> None:
    server.script = [refusing(200, b"x" * 2_000_000)]
    assert "more than 1000000 bytes (max_response_bytes)" in failure(
        server, BackendResponseError, max_response_bytes=1_000_000
    )


def test_an_answer_that_was_cut_off_says_so_and_odd_usage_is_left_out(server: Server) -> None:
    answer = {
        "choices": [{"text": " half ", "finish_reason": "length"}],
        "usage": {"total_tokens": "many", "n": True},
    }
    server.script = [refusing(200, json.dumps(answer).encode())]
    made = ask(server, max_tokens=5)
    assert (made.text, made.model, made.usage, made.note) == (
        "half",
        "tiny",
        {},
        "cut off after max_tokens=5",
    )


def test_many_at_once_share_connections_and_leave_nothing_open(server: Server) -> None:
    backend = OpenAIBackend(BackendConfig(model_path="m", retries=0), server.url)
    together = threading.Barrier(20)

    def short(handler: BaseHTTPRequestHandler) -> None:
        together.wait(timeout=20)  # none is answered before all are there
        usual(handler)

    server.script = [short] * 20

    async def run() -> list[Generation]:
        made = await asyncio.gather(*(backend.generate(GenerationRequest("q", "q")) for _ in range(20)))
        assert backend._client is None
        return made

    assert len(asyncio.run(run())) == 20
    assert server.peak == 20
    # Another loop afterwards, as after a restart of the operator.
    assert asyncio.run(backend.generate(GenerationRequest("q", "again"))).text == "echo: again"


def test_a_cancelled_request_leaves_nothing_open(server: Server) -> None:
    backend = OpenAIBackend(BackendConfig(model_path="m"), server.url)
    server.script = [silent]

    async def run() -> None:
        task = asyncio.create_task(backend.generate(GenerationRequest("q", "q")))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert backend._client is None

    asyncio.run(run())
