"""Durable ingest as a table, and what of its targets was reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ENGINES = ("sage", "sqlite_vec", "lancedb", "zvec", "chroma", "milvus", "qdrant")
OVER_BEST = 1.5
REOPEN_SECONDS_MAX = 1.0  # of A


def _rate(results: Sequence[dict[str, Any]]) -> float:
    return max((float(result["rows_per_second"]) for result in results), default=0.0)


def judge(data: str, results: Sequence[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """What of the targets can be said: (what, to reach, reached). Only what survives a loss of power is compared."""
    mine = [result for result in results if result["engine"] == "sage"]
    peers = [result for result in results if result["engine"] != "sage" and result["durable"]]
    lines: list[tuple[str, float, float]] = []
    if mine and peers:
        best = max(peers, key=lambda result: float(result["rows_per_second"]))
        what = f"{data} {best['mode']}: rate x {best['engine']} {best['variant']}"
        lines.append((what, OVER_BEST, _rate(mine) / _rate(peers)))
    if data == "A":
        for result in mine:
            # As "at least": how many times it fits into the second that it may take.
            reached = REOPEN_SECONDS_MAX / result["open_and_search_seconds"]
            lines.append((f"{data} {result['mode']}: reopen of sage {result['variant']}, 1 s is x", 1.0, reached))
    for result in mine:
        whole = float(result["lost"] == 0 and result["wrong_of_sample"] == 0)
        lines.append((f"{data} {result['mode']}: sage {result['variant']} lost nothing", 1.0, whole))
    return lines


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown, the fastest first."""
    lines = [
        (
            "| data | engine | durable | rows | rows/s | rows/CPU s | MB "
            "| open s | open and search s | CPU s of it | lost | wrong |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in sorted(results, key=lambda r: (r["data"], -r["rows_per_second"])):
        per_cpu = result["rows"] / max(result["ingest_cpu_seconds"], 0.01)
        lines.append(
            f"| {result['data']} | {result['engine']} {result['variant']} | {'yes' if result['durable'] else 'no'} "
            f"| {result['rows']:,} | {result['rows_per_second']:,.0f} | {per_cpu:,.0f} | {result['disk_mb']:.0f} "
            f"| {result['open_seconds']:.2f} | {result['open_and_search_seconds']:.2f} "
            f"| {result['open_and_search_cpu_seconds']:.2f} | {result['lost']} "
            f"| {result['wrong_of_sample']} |"
        )
    return "\n".join(lines) + "\n"
