"""How items find their replica: pure decisions on a packet and a snapshot of the targets' loads.

- `routers`: `BaseRouter` and its forms, `create_router`
"""

from __future__ import annotations

from .routers import (
    BaseRouter,
    BroadcastRouter,
    ForwardRouter,
    KeyHashRouter,
    LeastLoadedRouter,
    RoundRobinRouter,
    TargetLoad,
    create_router,
)

__all__ = [
    "BaseRouter",
    "BroadcastRouter",
    "ForwardRouter",
    "KeyHashRouter",
    "LeastLoadedRouter",
    "RoundRobinRouter",
    "TargetLoad",
    "create_router",
]
