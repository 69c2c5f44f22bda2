"""Compiles a logical graph into an `ExecutionGraph`: pure passes `Plan -> Plan`, each of which says what it
decided and why.

- `plan`: `Plan`, `CompileOptions`, `compile_graph`
- `loops`, `validate`, `types`, `parallelism`, `execution`, `coarsen`, `ordering`, `fuse`, `replicate`, `wire`,
  `place`: the passes, in this order; `costs`: what an item costs, and what is refused for it
- `render`: a plan as text, Mermaid or Graphviz
"""

from __future__ import annotations

from .costs import HAND_OVER_S
from .pipeline import PASSES, compile_graph
from .plan import Chain, CompileOptions, Measurement, NodeCapacity, Plan
from .render import render_dot, render_mermaid, render_text
from .validate import check_names

__all__ = [
    "HAND_OVER_S",
    "PASSES",
    "Chain",
    "CompileOptions",
    "Measurement",
    "NodeCapacity",
    "Plan",
    "check_names",
    "compile_graph",
    "render_dot",
    "render_mermaid",
    "render_text",
]
