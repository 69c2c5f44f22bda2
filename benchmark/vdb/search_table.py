"""Searches, filtered searches and changes as tables, and what of their targets was reached."""

from __future__ import annotations

from typing import Any

# (data, at least so many times the best peer, so many times hnswlib M=16), at both recalls.
TARGETS = {"A": (1.3, 3.5), "B": (2.0, 4.0)}
MEMORY_SHARE_MAX = 0.7  # of hnswlib's, on B
FILTER_MIN = 1.3  # times the best peer
CHANGES_MIN = 1.5
LOSS_MAX = 0.5  # points of recall


def _best(results: list[dict[str, Any]], key: str) -> float:
    return max((result[key] for result in results if result.get(key) is not None), default=0.0)


def judge(data: str, results: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """What of the targets can be said: (what, to reach, reached)."""
    lines = _judge_searches(data, [r for r in results if r.get("workload", "search") == "search"])
    for workload, keys, wanted in (
        ("filter", ("filter_0.01", "filter_0.1"), FILTER_MIN),
        ("churn", ("upserts_single", "upserts_batch", "changes_single", "changes_batch"), CHANGES_MIN),
    ):
        of_it = [r for r in results if r.get("workload") == workload]
        mine = [r for r in of_it if r["engine"] == "sage"]
        peers = [r for r in of_it if r["engine"] != "sage"]
        for key in keys:
            if mine and _best(peers, key):
                lines.append((f"{data} {key}: x best peer", wanted, _best(mine, key) / _best(peers, key)))
        for key in ("lost_0.95", "lost_0.99") if mine and workload == "churn" else ():
            # As "at least": what is left of the points that may be lost.
            lines.append((f"{data} {key}: points left of {LOSS_MAX}", 0.0, LOSS_MAX - mine[0][key]))
    return lines


def _judge_searches(data: str, results: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    mine = [result for result in results if result["engine"] == "sage"]
    peers = [result for result in results if result["engine"] != "sage"]
    hnswlib = [r for r in peers if r["engine"] == "hnswlib" and r["variant"] == "m16"]
    lines = []
    if data in TARGETS and mine and peers:
        over_best, over_hnswlib = TARGETS[data]
        for key, recall in (("qps_95", 0.95), ("qps_99", 0.99)):
            if _best(peers, key):
                lines.append((f"{data} at {recall}: x best peer", over_best, _best(mine, key) / _best(peers, key)))
            if _best(hnswlib, key):
                lines.append((f"{data} at {recall}: x hnswlib", over_hnswlib, _best(mine, key) / _best(hnswlib, key)))
        if hnswlib:
            # As "at least": how much longer, and larger, hnswlib is.
            ratio = hnswlib[0]["build_seconds"] / mine[0]["build_seconds"]
            lines.append((f"{data}: hnswlib's build time x", 1.0, ratio))
            if data == "B":
                share = hnswlib[0]["index_mb"] / mine[0]["index_mb"]
                lines.append((f"{data}: hnswlib's memory x", 1.0 / MEMORY_SHARE_MAX, share))
    return lines


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown, the fastest first."""
    searches = [result for result in results if result.get("workload", "search") == "search"]
    text = _search_table(searches) if searches else ""
    for workload in ("filter", "churn"):
        of_it = [result for result in results if result.get("workload") == workload]
        keys = [key for key, value in of_it[0].items() if isinstance(value, float)] if of_it else []
        if not keys:
            continue
        text += "\n| data | engine | " + " | ".join(keys) + " |\n|---|---|" + "---|" * len(keys) + "\n"
        for result in of_it:
            values = [f"{result[key]:,.2f}" if result.get(key) is not None else "-" for key in keys]
            text += f"| {result['data']} | {result['engine']} {result['variant']} | {' | '.join(values)} |\n"
    return text


def _search_table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| data | engine | 0.95 | 0.99 | build s | build CPU s | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in sorted(results, key=lambda r: (r["data"], -(r["qps_95"] or 0.0))):
        rates = [f"{result[key]:,.0f}" if result[key] else "-" for key in ("qps_95", "qps_99")]
        lines.append(
            f"| {result['data']} | {result['engine']} {result['variant']} | {rates[0]} | {rates[1]} "
            f"| {result['build_seconds']:.1f} | {result['build_cpu_seconds']:.1f} | {result['index_mb']:.0f} |"
        )
    return "\n".join(lines) + "\n"
