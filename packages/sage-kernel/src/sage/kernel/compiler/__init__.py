"""Compiles a logical graph into an `ExecutionGraph`: pure passes `Plan -> Plan`, each of which says what it
decided and why.

- `plan`: `Plan`, `CompileOptions`, `compile_graph`
- `validate`, `types`, `parallelism`, `execution`, `fuse`, `replicate`, `wire`, `place`: the passes, in this
  order
- `render`: a plan as text, Mermaid or Graphviz
"""

from __future__ import annotations

from .pipeline import PASSES, compile_graph
from .plan import Chain, CompileOptions, NodeCapacity, Plan
from .render import render_dot, render_mermaid, render_text
from .validate import check_names

__all__ = [
    "PASSES",
    "Chain",
    "CompileOptions",
    "NodeCapacity",
    "Plan",
    "check_names",
    "compile_graph",
    "render_dot",
    "render_mermaid",
    "render_text",
]
