"""Foundations without any runtime: what all other layers stand on.

- `errors`, `ids`, `clock` (real and virtual), `logging`
- `config`: YAML, TOML and JSON with line numbers
- `serialization`: pickle 5 with buffers out of band, code, JSON records
- `hashing`: hashes and key groups that are the same in each process
- `quantiles`: a mergeable sketch with bounded relative error
"""

from __future__ import annotations

__all__: list[str] = []
