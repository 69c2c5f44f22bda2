"""Declares the operators of one list of a pipeline file through the DSL, so that a rule holds for both alike."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sage.common.errors import SageError
from sage.kernel.api import DataStream, FutureStream, LocalEnvironment, PipelineError, SplitStreams
from sage.kernel.api.declare import declared_at
from sage.kernel.graph import Contract, SourceLocation
from sage.kernel.operators import Function

from .document import PipelineDocument
from .findings import explain_validation, hint
from .inputs import InputStream, StreamRef
from .kinds import FOLDS, SEVERAL_STREAMS
from .operations import Made, add_operator
from .specification import OperatorSpec
from .targets import Targets

__all__ = ["OperatorsBuilder", "contract_adapter", "without_place"]


@cache
def contract_adapter() -> TypeAdapter[Contract]:
    """What checks a contract that is given as a mapping."""
    return TypeAdapter(Contract)


class OperatorsBuilder:
    """Declares the operators of one list. An operator that cannot be declared does not hide what is wrong with the
    others.

    Args:
        document: the file; what is wrong is reported to it.
        targets: what the names in it stand for.
        env: where to declare.
        specs: the operators.
        unread: names of operators whose form is so wrong that they are not among them.
    """

    def __init__(
        self,
        document: PipelineDocument,
        targets: Targets,
        env: LocalEnvironment,
        specs: Sequence[OperatorSpec],
        unread: Collection[str] = (),
    ) -> None:
        self.specs = tuple(specs)
        self._unread = unread
        self._document = document
        self._targets = targets
        self._env = env
        self._names = _names_of(specs)
        # By name of the operator; None where it could not be declared, which its consumers are not blamed for.
        self._streams: dict[str, Made] = {}
        self._above: dict[str, OperatorSpec] = {}

    def build(self) -> None:
        """Declare all of them."""
        for number, spec in enumerate(self.specs):
            before = self.specs[number - 1] if number else None
            if before is not None and before.index != spec.index - 1:
                before = None  # what stood there could not be read, and has been reported
            self._declare(spec, before)
        if not self._document.findings:
            self._report_loose_ends()

    def _declare(self, spec: OperatorSpec, before: OperatorSpec | None) -> None:
        name, failed = self._names.get(spec.index, ""), len(self._document.findings)
        is_second = spec.name is not None and spec.name in self._above
        if is_second:
            first = self._above[name].location.line
            self._document.report(
                spec.path("name"),
                f"names of operators must be unique, got {spec.name!r} twice; the first is in line {first}",
            )
        streams = self._inputs(spec, before)
        target, config, _ = self._targets.of(spec)
        contract = self._contract(spec, target)
        if spec.kind == "fill" and target is not None:
            target = self._future(spec, target)
        made: Made = None
        if target is not None and config is not None and streams is not None and not is_second:
            made = self._call(spec, streams, target, config, {"name": name, "contract": contract})
        if spec.kind != "fill":
            self._above.setdefault(name, spec)
            self._streams[name] = made if len(self._document.findings) == failed else None

    def _call(
        self,
        spec: OperatorSpec,
        streams: list[DataStream],
        target: Any,
        config: Mapping[str, Any],
        facts: dict[str, Any],
    ) -> Made:
        token = declared_at.set(spec.location)
        try:
            return add_operator(self._env, streams, spec, target, config, {**facts, "parallelism": spec.parallelism})
        except SageError as error:
            self._document.report(spec.path(spec.kind), without_place(str(error), spec.location))
            return None
        finally:
            declared_at.reset(token)

    def _contract(self, spec: OperatorSpec, target: Any) -> Contract | None:
        """What the file says over what the operator declares; None where the file says nothing."""
        if not spec.contract:
            return None
        base = target.contract if isinstance(target, type) and issubclass(target, Function) else Contract()
        merged = _merged(asdict(base), spec.contract)
        try:
            return contract_adapter().validate_python(merged, extra="forbid")
        except ValidationError as error:
            for path, message in explain_validation(error, merged, Contract):
                self._document.report(spec.path("contract", *path), message)
            return None

    # -- inputs

    def _inputs(self, spec: OperatorSpec, before: OperatorSpec | None) -> list[DataStream] | None:
        """The streams that go into an operator; None where one of them is not known, which has been reported."""
        if spec.is_source:
            return []
        if spec.inputs_wrong:
            return None
        wanted = {"comap": 2, "join": 2}.get(spec.kind)
        given = 1 if spec.inputs is None else len(spec.inputs)
        if spec.kind in SEVERAL_STREAMS and (given < 2 or (wanted is not None and given != wanted)):
            number = "at least two" if wanted is None else "two"
            self._document.report(
                spec.path("input" if spec.inputs is not None else spec.kind),
                f"{spec.kind} takes {number} streams: say `input: [FIRST, SECOND]`, got {given}",
            )
            return None
        wanted_streams = spec.inputs or (InputStream((StreamRef(None, path=spec.path()),)),)
        found = [self._stream(spec, each, before) for each in wanted_streams]
        streams = [stream for stream in found if stream is not None]
        return streams if len(streams) == len(found) else None

    def _stream(self, spec: OperatorSpec, wanted: InputStream, before: OperatorSpec | None) -> DataStream | None:
        found = [self._one(spec, ref, before) for ref in wanted.refs]
        parts = [part for part in found if part is not None]
        if len(parts) < len(found):
            return None
        return parts[0].union(*parts[1:]) if wanted.is_union else parts[0]

    def _one(self, spec: OperatorSpec, ref: StreamRef, before: OperatorSpec | None) -> DataStream | None:
        problem = self._problem(spec, ref, before)
        if problem:
            self._document.report(ref.path, problem)
        name = ref.operator or (self._names.get(before.index) if before is not None else None)
        made = None if problem or name is None else self._streams.get(name)
        if made is None:
            return None
        place = self._document.at(*ref.path)
        token = declared_at.set(place)
        try:
            if isinstance(made, SplitStreams):
                assert ref.branch is not None
                stream: DataStream = made[ref.branch]
            else:
                stream = made if ref.branch is None else made.side_output(ref.branch)
        except PipelineError as error:
            self._document.report(ref.path, without_place(str(error), place))
            return None
        finally:
            declared_at.reset(token)
        if ref.routing is not None:
            stream = stream.broadcast() if ref.routing == "broadcast" else stream.rebalance()
        return stream

    def _problem(self, spec: OperatorSpec, ref: StreamRef, before: OperatorSpec | None) -> str:
        """Why a stream cannot be taken, "" where it can or where that has been reported already."""
        if ref.operator is None:
            if before is None:
                return "" if spec.index else f"the first operator must be a source, got {spec.kind}"
            if before.kind == "fill":
                return "nothing comes out of the fill before it: say `input: NAME`"
            name = self._names[before.index]
            if before.is_sink:
                return f"nothing comes out of the sink {name!r} before it: say `input: NAME`"
            above: OperatorSpec | None = before
        else:
            name, above = ref.operator, self._above.get(ref.operator)
        if above is None:
            if name in self._unread:
                return ""
            later = next((each for each in self.specs if self._names.get(each.index) == name), None)
            if later is None:
                return f"there is no operator {name!r} above this one{hint(name, self._above)}"
            cycle = self._cycle(spec, later)
            if not cycle:
                return f"there is no operator {name!r} above this one; it must stand above"
            return (
                f"a cycle: {' -> '.join(cycle)}. Items come back only through a future: put `- future:` with a name "
                f"above, take that name here, and put `- fill: NAME` behind {name!r}"
            )
        if above.is_sink:
            return f"{name!r} is a sink: nothing comes out of it"
        if above.kind == "split" and ref.branch is None:
            branches = above.what.get("into") or list(above.what["by"])
            return f"split {name!r} has branches, name one of them: `input: {name}/{branches[0]}`"
        return ""

    def _cycle(self, spec: OperatorSpec, later: OperatorSpec) -> list[str]:
        """The names on the way from an operator to one below it that it takes, and back; empty where there is none."""
        start = self._names[spec.index]
        by_name = {self._names[each.index]: each for each in self.specs if each.index in self._names}
        waiting, seen = [[self._names[later.index]]], {self._names[later.index]}
        while waiting:
            way = waiting.pop()
            if way[-1] == start:
                return [start, *reversed(way[:-1]), start]
            for name in self._taken_by(by_name[way[-1]]):
                if name in by_name and name not in seen:
                    seen.add(name)
                    waiting.append([*way, name])
        return []

    def _taken_by(self, spec: OperatorSpec) -> Iterator[str]:
        """Names of the operators whose outputs an operator takes, whether they are there or not."""
        if spec.is_source:
            return
        above = self._names.get(spec.index - 1)
        if spec.inputs is None:
            yield from () if above is None else (above,)
            return
        for stream in spec.inputs:
            for ref in stream.refs:
                name = above if ref.operator is None else ref.operator
                yield from () if name is None else (name,)

    def _future(self, spec: OperatorSpec, target: dict[str, Any]) -> dict[str, Any] | None:
        """The arguments of `fill` with the future itself."""
        name = target["future"]
        made = self._streams.get(name)
        above = self._above.get(name)
        if name not in self._unread and (above is None or above.kind != "future"):
            futures = [each for each, found in self._above.items() if found.kind == "future"]
            problem = f"there is no future {name!r} above this one" if above is None else f"{name!r} is no future"
            self._document.report(spec.path("fill"), problem + hint(name, futures))
        return {**target, "future": made} if isinstance(made, FutureStream) else None

    def _report_loose_ends(self) -> None:
        taken = {name for spec in self.specs for name in self._taken_by(spec)}
        filled = {spec.what["future"] for spec in self.specs if spec.kind == "fill"}
        for spec in self.specs:
            if spec.kind == "future" and self._names[spec.index] not in filled:
                self._document.report(
                    spec.path(),
                    f"the future {self._names[spec.index]!r} is never filled: put `- fill: {self._names[spec.index]}` "
                    f"behind what comes back",
                )
            name = self._names.get(spec.index)
            if not spec.is_sink and name not in taken:
                self._document.report(
                    spec.path(), f"the stream of {name!r} goes nowhere: put a sink behind it, or take it with `input:`"
                )


def _names_of(specs: Sequence[OperatorSpec]) -> dict[int, str]:
    """Names by index: given ones, else those of what the operators are."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for spec in specs:
        if spec.kind == "fill":
            continue  # it is no operator
        if spec.ordered:
            taken.add(_free_name("ordered", taken))  # what the DSL puts in front of such a sink
        names[spec.index] = _free_name(_base_name(spec), taken) if spec.name is None else spec.name
        taken.add(names[spec.index])
    return names


def _base_name(spec: OperatorSpec) -> str:
    named = isinstance(spec.what, str) and spec.kind not in (*FOLDS, "print")
    base = spec.what.rpartition(":")[2] if named else ""
    return base.replace(".", "_") or spec.kind


def _free_name(base: str, taken: set[str]) -> str:
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    return name


def without_place(message: str, place: SourceLocation) -> str:
    """A message of the DSL without the place that it names: that is told beside it."""
    return message.replace(f" ({place})", "").replace(f", {place})", ")")


def _merged(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in given.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged
