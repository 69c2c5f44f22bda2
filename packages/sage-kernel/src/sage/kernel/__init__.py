"""The dataflow kernel; top first, and imports run downwards only.

- `api`: declare a pipeline and run it (begin here)
- `runtime`: workers, chains, channels' ends, jobs, dead letters
- `compiler`: from the declared graph to the `ExecutionGraph`
- `operators`, `telemetry`, `routing`, `packet`, `graph`: what these stand on
"""

from __future__ import annotations

__all__: list[str] = []
