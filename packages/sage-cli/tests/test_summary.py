"""Numbers and tables for people."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sage.cli.plain_text import one_line, printable
from sage.cli.quantities import format_count, format_duration_ms, format_rate
from sage.cli.summary import operators_table
from sage.kernel.telemetry import JobMetrics, LatencyMetrics, OperatorMetricsSnapshot

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@given(st.floats(min_value=0.001, max_value=59_000))
def test_a_duration_reads_back_within_one_percent(milliseconds: float) -> None:
    text = format_duration_ms(milliseconds)
    assert len(text) <= 6
    found = re.fullmatch(r"([0-9.]+)(us|ms|s)", text)
    assert found is not None, text
    back = float(found[1]) * _UNITS[found[2]]
    assert back == pytest.approx(milliseconds, rel=0.006, abs=0.0006)


@given(st.integers(min_value=0, max_value=10**12))
def test_counts_read_back(count: int) -> None:
    assert int(format_count(count).replace(",", "")) == count
    short = format_count(count, compact=True)
    assert len(short) <= 6
    scale = {"K": 1e3, "M": 1e6, "G": 1e9}.get(short[-1], 1)
    assert float(short.rstrip("KMG").replace(",", "")) * scale == pytest.approx(count, rel=0.006)


@given(st.floats(min_value=0, max_value=1e11))
def test_rates_are_short(rate: float) -> None:
    assert len(format_rate(rate)) <= 8


@given(st.text(), st.integers(min_value=4, max_value=80))
def test_what_is_printable_cannot_steer_a_terminal(text: str, length: int) -> None:
    assert all(letter.isprintable() or letter in "\n\t" for letter in printable(text))
    line = one_line(text, length)
    assert "\n" not in line
    assert len(line) <= length


_latencies = st.builds(
    LatencyMetrics,
    count=st.integers(0, 10**6),
    mean_ms=st.floats(0, 1e8),
    p50_ms=st.floats(0, 1e8),
    p99_ms=st.floats(0, 1e8),
    max_ms=st.floats(0, 1e8),
)
_operators = st.builds(
    OperatorMetricsSnapshot,
    operator=st.text("abcdefghij_-. ", min_size=1, max_size=60).map(lambda name: f"x{name}x"),
    replicas=st.integers(1, 999),
    items_in=st.integers(0, 10**9),
    items_out=st.integers(0, 10**9),
    errors=st.integers(0, 10**9),
    retries=st.just(0),
    dead_letters=st.just(0),
    service=_latencies,
    queue_wait=_latencies,
    blocked_ms=st.floats(0, 1e8),
)


@given(st.lists(_operators, min_size=1, max_size=5), st.sampled_from([80, 100, 140]))
def test_the_table_fits_and_never_cuts_a_number(operators: list[OperatorMetricsSnapshot], width: int) -> None:
    metrics = JobMetrics(
        elapsed_s=1.0, items_in=0, items_out=0, errors=0, dead_letters=0, latency=LatencyMetrics(),
        operators=tuple(operators), replicas=(),
    )  # fmt: skip
    written = io.StringIO()
    console = Console(file=written, width=width)
    console.print(operators_table(metrics, console))
    lines = written.getvalue().splitlines()
    assert len(lines) == 3 + len(operators)  # two lines of header and a rule: no row is wrapped
    assert max(map(len, lines)) <= width
    for line, operator in zip(lines[3:], operators, strict=True):
        cells = line.rsplit(maxsplit=9)
        assert "…" not in "".join(cells[1:])
        assert cells[1] == str(operator.replicas)
        compact, exact = (format_count(operator.items_in, compact=short) for short in (True, False))
        assert cells[2] in (compact, exact)
