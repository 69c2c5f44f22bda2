"""Benchmarks: SAGE beside named peers in the same run.

- `runner`: runs every workload in turn on SAGE and its peers, several times, interleaved
- `targets`: what is to be reached, and against whom
- `peers/`: one script per peer, SAGE included, under one contract
"""

from __future__ import annotations

__all__: list[str] = []
