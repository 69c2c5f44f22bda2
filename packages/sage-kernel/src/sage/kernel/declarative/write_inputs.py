"""How the streams that an operator takes are written into a pipeline file."""

from __future__ import annotations

from typing import Any

from sage.kernel.graph import BaseTransformation, LogicalGraph, OperatorKind, Routing

__all__ = ["InputWriter"]

_ROUTINGS = {Routing.BROADCAST: "broadcast", Routing.ROUND_ROBIN: "rebalance"}


class InputWriter:
    """Writes the inputs of the operators of a graph, in the order of declaration.

    Args:
        graph: the pipeline.

    Attributes:
        before: the operator that was written last, which needs not be named as an input; None where there is none.
    """

    def __init__(self, graph: LogicalGraph) -> None:
        self.before: str | None = None
        self._graph = graph
        operators = graph.transformations
        self._hidden = {each.inputs[0] for each in operators if each.options.get("in_order")}
        self._position = {each.name: position for position, each in enumerate(operators)}

    def is_hidden(self, operator: BaseTransformation) -> bool:
        """Whether it is what `sink(ordered=True)` has put in front of the sink, and so does not stand in the file."""
        return operator.name in self._hidden

    def filled_behind(self, operator: BaseTransformation) -> list[BaseTransformation]:
        """The futures whose last input this operator is: there the file says that they are filled."""
        return [
            each
            for each in self._graph.transformations
            if each.kind is OperatorKind.FUTURE
            and each.inputs
            and max(each.inputs, key=self._position.__getitem__) == operator.name
        ]

    def of(self, operator: BaseTransformation) -> dict[str, Any]:
        """The key `input` of an operator with its value; nothing where it takes the one before."""
        if operator.options.get("in_order"):
            operator = self._graph[operator.inputs[0]]
        if not operator.inputs or operator.kind is OperatorKind.FUTURE:
            return {}
        sides = operator.options.get("sides")
        indices = range(len(operator.inputs))
        if sides is not None:
            streams = [[index for index in indices if sides[index] == side] for side in range(max(sides) + 1)]
            return {"input": [self._stream(operator, stream) for stream in streams]}
        return self._entry(self._stream(operator, list(indices)))

    def of_future(self, future: BaseTransformation) -> dict[str, Any]:
        """The same of what comes back to a future."""
        refs = [self._ref(future, index) for index in range(len(future.inputs))]
        return self._entry(refs[0] if len(refs) == 1 else refs)

    def _entry(self, stream: Any) -> dict[str, Any]:
        return {} if stream == self.before else {"input": stream}

    def _stream(self, operator: BaseTransformation, indices: list[int]) -> Any:
        refs = [self._ref(operator, index) for index in indices]
        first = indices[0]
        carries_key = operator.routing(first) is None and self._carries_key(operator.inputs[first])
        # A key_by forgets the key before it by itself.
        forgets_key = carries_key and not operator.keyed_input and operator.kind is not OperatorKind.KEY_BY
        return refs if len(refs) > 1 or forgets_key else refs[0]

    def _ref(self, operator: BaseTransformation, index: int) -> Any:
        name, branch, routing = operator.inputs[index], operator.branch(index), operator.routing(index)
        if routing is not None:
            return {"from": name, **({} if branch is None else {"branch": branch}), "routing": _ROUTINGS[routing]}
        return name if branch is None else f"{name}/{branch}"

    def _carries_key(self, name: str) -> bool:
        operator = self._graph[name]
        return operator.kind is OperatorKind.KEY_BY or operator.keyed_input
