"""Operators in a service's pipeline: they see the request and what has become of it, the runtime sees whose it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from sage.kernel.graph import BaseTransformation, OperatorKind
from sage.kernel.operators import BranchItem, Envelope, NoAnswerError, OperatorContext
from sage.kernel.operators.services import settle

from .chain import DeadLetterSink, SetAside
from .gather import check_results
from .steps import ItemError, check_output, explode

__all__ = ["AnswerLetters", "in_envelopes"]

_Call = Callable[[Any], Any]


def in_envelopes(operator: BaseTransformation, call: _Call, context: OperatorContext, *, is_async: bool) -> _Call:
    """`call` of an operator for items that are in envelopes.

    What an operator drops on the way to the answer is an error at the caller; beside that way it is dropped.
    """
    if operator.options.get("responds"):
        return call
    finish = _finish(operator, context)
    lists = operator.contract.io.batching is not None

    def content(item: Any) -> Any:
        return [envelope.value for envelope in item] if lists else item.value

    def plain(item: Any) -> Any:
        return finish(call(content(item)), item)

    async def awaited(item: Any) -> Any:
        result = call(content(item))
        if inspect.isawaitable(result):
            result = await result
        elif inspect.isasyncgen(result):
            result = [output async for output in result]
        return finish(result, item)

    return awaited if is_async else plain


def _finish(operator: BaseTransformation, context: OperatorContext) -> Callable[[Any, Any], Any]:
    """What becomes of the result for an envelope."""
    name, on_path = operator.name, operator.options["requests"] == "path"

    def one(result: Any, item: Envelope) -> Any:
        check_output(name, result)
        return item.holding(result)

    def some(results: Any, items: list[Envelope]) -> Any:
        outputs = check_results(name, results, len(items))
        return [item.holding(output) for item, output in zip(items, outputs, strict=True)]

    def kept(result: Any, item: Envelope) -> Any:
        check_output(name, result)
        if not result and on_path:
            settle(item.answer, error=NoAnswerError(f"the request was dropped by filter {name!r}"))
        return result

    def exploded(result: Any, item: Envelope) -> Any:
        outputs = explode(name, result, operator.contract.io.outputs_max)
        if on_path and len(outputs) != 1:
            raise ItemError(f"flatmap {name!r} made {len(outputs)} items of one request, which has one answer")
        return [item.holding(output) for output in outputs]

    def branched(result: BranchItem, item: Envelope) -> Any:
        if on_path and result.branch not in context.branches:
            settle(item.answer, error=NoAnswerError(f"nobody takes the branch {result.branch!r} of split {name!r}"))
        return BranchItem(result.branch, item.holding(result.item))

    if operator.contract.io.batching is not None:
        return some
    finishes: dict[OperatorKind, Callable[[Any, Any], Any]] = {
        OperatorKind.MAP: one,
        OperatorKind.FILTER: kept,
        OperatorKind.FLATMAP: exploded,
        OperatorKind.SPLIT: branched,
    }
    return finishes.get(operator.kind, lambda result, item: result)


class AnswerLetters:
    """Takes the dead letters of a service's pipeline: an item on its way to the answer becomes an error at the caller,
    others are stored as usual.

    Args:
        store: where those go.
        path: names of the operators that lead to the answer.
    """

    def __init__(self, store: DeadLetterSink, path: Collection[str]) -> None:
        self._store = store
        self._path = path

    def add(self, letter: SetAside) -> None:
        """Tell the caller, or store the letter."""
        if not isinstance(letter.item, Envelope):
            self._store.add(letter)
        elif letter.operator in self._path:
            settle(letter.item.answer, error=letter.error)
        else:
            self._store.add(replace(letter, item=letter.item.value))
