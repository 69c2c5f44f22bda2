"""The end of a run for people: what was done, how fast, where the time went, what was set aside."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from sage.kernel.api import JobResult, JobState
from sage.kernel.runtime.dead_letters import DeadLetter
from sage.kernel.telemetry import JobMetrics, LatencyMetrics, OperatorMetricsSnapshot

from .plain_text import one_line
from .quantities import format_count, format_duration_ms, format_rate, plural

__all__ = ["DEFAULT_HOME", "dead_letters_command", "operators_table", "print_summary"]

DEFAULT_HOME = Path(".sage")
_NOTHING = "-"
_ITEM_MAX = 60
_NAME_MIN = 8
# From roomy to narrow: blanks between columns, and whether large counts are shortened.
_FORMS = ((3, False), (2, False), (2, True), (1, True))
_STATE_STYLE = {
    JobState.FINISHED: "bold green",
    JobState.STOPPED: "bold yellow",
    JobState.FAILED: "bold red",
    JobState.ABORTED: "bold red",
}


def print_summary(console: Console, result: JobResult, first: DeadLetter | None) -> None:
    """Print what a job did; `first` is the first of its dead letters."""
    console.print()
    if not result.metrics.elapsed_s and not result.metrics.items_in:
        # It failed before its sources were opened: a table of zeros would stand before the one line that helps.
        console.print(Text.assemble((result.name, "bold"), " failed before it began"), soft_wrap=True)
        return
    console.print(_headline(result), soft_wrap=True)
    for line in _totals(result.metrics):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.print()
    console.print(operators_table(result.metrics, console))
    if result.dead_letters:
        console.print()
        _print_dead_letters(console, result, first)


def _headline(result: JobResult) -> Text:
    line = Text()
    line.append(result.name, style="bold")
    line.append(" ")
    line.append(result.state.value, style=_STATE_STYLE.get(result.state, ""))
    line.append(f" in {format_duration_ms(result.metrics.elapsed_s * 1000)}")
    return line


def _totals(metrics: JobMetrics) -> Iterator[str]:
    retries = sum(operator.retries for operator in metrics.operators)
    counts = [
        f"items       {metrics.items_in:,} in, {metrics.items_out:,} out",
        plural(metrics.errors, "error"),
        plural(metrics.dead_letters, "dead letter"),
    ]
    if retries:
        counts.insert(2, "1 retry" if retries == 1 else f"{retries:,} retries")
    yield ", ".join(counts)
    yield f"throughput  {format_rate(metrics.throughput)}"
    latency = metrics.latency
    if latency.count:
        p50, p99 = format_duration_ms(latency.p50_ms), format_duration_ms(latency.p99_ms)
        yield f"latency     P50 {p50}, P99 {p99}"
    for operator in metrics.operators:
        hot = operator.hot_key
        if hot is not None:
            yield (
                f"hot key     {operator.operator}: {one_line(hot.key, _ITEM_MAX)} makes {hot.share:.0%} of the items; "
                f"replica {hot.replica} has {hot.replica_share:.0%}, a fair share is {1 / operator.replicas:.0%}"
            )
    counted = [
        f"{operator.operator} {name} {amount:,g}"
        for operator in metrics.operators
        for name, amount in operator.counters.items()
    ]
    if counted:
        yield f"counted     {', '.join(counted)}"


def operators_table(metrics: JobMetrics, console: Console) -> Table:
    """One row per operator, in the widest form that fits the console."""
    table, excess = Table(), 0
    for gap, compact in _FORMS:
        table = _table(metrics, gap, compact)
        excess = Measurement.get(console, console.options.update(max_width=1000), table).maximum - console.width
        if excess <= 0:
            return table
    # Names are cut rather than numbers: a number without its end is a wrong number.
    longest = max(cell_len(operator.operator) for operator in metrics.operators)
    return _table(metrics, *_FORMS[-1], name_width=max(_NAME_MIN, longest - excess))


def _table(metrics: JobMetrics, gap: int, compact: bool, name_width: int | None = None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
    # A box without edges still has a column of one blank between two cells: it counts as part of the gap.
    table.add_column("\noperator", no_wrap=True, overflow="ellipsis", max_width=name_width)
    for header in ("\nrepl.", "items\nin", "items\nout", "\nerrors"):
        table.add_column(header, justify="right", no_wrap=True)
    for header in ("wait\nmean", "wait\nP99", "service\nmean", "service\nP99", "\nblocked"):
        table.add_column(header, justify="right", no_wrap=True)
    for operator in metrics.operators:
        table.add_row(*_cells(operator, compact))
    return table


def _cells(operator: OperatorMetricsSnapshot, compact: bool) -> list[Text]:
    errors = Text(format_count(operator.errors, compact=compact), style="red" if operator.errors else "default")
    return [
        Text(operator.operator),
        Text(str(operator.replicas)),
        Text(format_count(operator.items_in, compact=compact)),
        Text(format_count(operator.items_out, compact=compact)),
        errors,
        *_times(operator.queue_wait),
        *_times(operator.service),
        Text(format_duration_ms(operator.blocked_ms) if operator.blocked_ms else _NOTHING),
    ]


def _times(times: LatencyMetrics) -> tuple[Text, Text]:
    if not times.count:
        return Text(_NOTHING), Text(_NOTHING)
    return Text(format_duration_ms(times.mean_ms)), Text(format_duration_ms(times.p99_ms))


def _print_dead_letters(console: Console, result: JobResult, first: DeadLetter | None) -> None:
    by_operator = ", ".join(
        f"{operator.operator} {operator.dead_letters:,}"
        for operator in result.metrics.operators
        if operator.dead_letters
    )
    line = Text(f"{plural(result.dead_letters, 'dead letter')}", style="bold yellow")
    line.append(f" ({by_operator})", style="default")
    console.print(line, soft_wrap=True)
    if first is not None:
        item = one_line(first.item, _ITEM_MAX)
        error = one_line(f"{first.error_type}: {first.error}")
        console.print(f"  the first   item {item} of operator {first.operator!r}", soft_wrap=True, markup=False)
        console.print(f"              {error}", soft_wrap=True, markup=False)
    console.print(f"  see them    {dead_letters_command(result)}", soft_wrap=True, markup=False)


def dead_letters_command(result: JobResult) -> str:
    """The command that lists the dead letters of a run.

    Example:
        >>> metrics = JobMetrics(
        ...     elapsed_s=1.0, items_in=1, items_out=0, errors=1, dead_letters=1, latency=LatencyMetrics(),
        ...     operators=(), replicas=())
        >>> result = JobResult(
        ...     job_id="job-1", name="demo", state=JobState.FINISHED, reason="", metrics=metrics,
        ...     dead_letters=1, dead_letters_path="my runs/dead_letters.db")
        >>> dead_letters_command(result)
        "sage dead-letters list --job job-1 --home 'my runs'"
    """
    command = ["sage", "dead-letters", "list", "--job", result.job_id]
    home = Path(result.dead_letters_path).parent
    if home != DEFAULT_HOME:
        command += ["--home", str(home)]
    return shlex.join(command)
