"""Outputs that are not for the main stream."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["BranchItem"]


class BranchItem:
    """An output that is for a branch (of a split, or a side output) and not for the main stream; it lives from the
    operator to the edge that takes it.
    """

    __slots__ = ("branch", "item")

    def __init__(self, branch: str, item: Any) -> None:
        self.branch: Final = branch
        self.item: Final = item

    def __repr__(self) -> str:
        return f"BranchItem({self.branch!r}, {self.item!r})"
