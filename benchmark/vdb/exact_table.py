"""Exact search as a table, and what of its targets was reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ONE_MIN = 1.3  # times the best peer
MANY_MIN = 1.0
BANDWIDTH_SHARE_MIN = 0.8  # of what the core reads


def judge(data: str, results: Sequence[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """What of the targets can be said: (what, to reach, reached)."""
    mine = [result for result in results if result["variant"] == "sage"]
    peers = [result for result in results if result["variant"] != "sage"]
    lines: list[tuple[str, float, float]] = []
    for key, what, wanted in (("one_ms", "one query", ONE_MIN), ("many_ms", "1,000 queries", MANY_MIN)):
        if mine and peers:
            best = min(peers, key=lambda result: float(result[key]))
            lines.append((f"{data} exact, {what}: x {best['variant']}", wanted, best[key] / mine[0][key]))
    for result in results:
        if mine and "read_gb_per_s" in result:
            # The rows that a query answers for; most of them need not be read.
            share = mine[0]["gb_per_s"] / result["read_gb_per_s"]
            lines.append((f"{data} exact, one query: x what the core reads", BANDWIDTH_SHARE_MIN, share))
    return lines


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "| data | exact search by | one query ms | 1,000 queries ms | GB/s of one query | the core reads GB/s |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        reads = f"{result['read_gb_per_s']:.1f}" if "read_gb_per_s" in result else ""
        lines.append(
            f"| {result['data']} | {result['variant']} | {result['one_ms']:.2f} | {result['many_ms']:.0f} "
            f"| {result['gb_per_s']:.1f} | {reads} |"
        )
    return "\n".join(lines) + "\n"
