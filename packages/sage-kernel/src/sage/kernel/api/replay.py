"""Gives dead letters back to the operators at which they failed."""

from __future__ import annotations

import difflib
import operator as operators
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, Self

from sage.common.errors import StoreError
from sage.common.ids import new_id
from sage.kernel.graph import BaseTransformation, LogicalGraph, OperatorKind, PipelineError, StateKind
from sage.kernel.operators import CoMapSpec, FunctionFactory, InterleaveSpec, IterableSource
from sage.kernel.runtime import DeadLetter, DeadLetterStore, JobHandle, JobResult, JobState, LetterState

from .declare import declare
from .local_environment import LocalEnvironment

__all__ = ["DeadLetterRetry", "RetryOutcome"]

_STATELESS: Final = frozenset(
    {
        OperatorKind.SOURCE,
        OperatorKind.MAP,
        OperatorKind.FLATMAP,
        OperatorKind.FILTER,
        OperatorKind.KEY_BY,
        OperatorKind.SPLIT,
        OperatorKind.INTERLEAVE,
        OperatorKind.BATCH,
        OperatorKind.ORDERED,
        OperatorKind.FUTURE,
        OperatorKind.SINK,
    }
)
_ORDINALS: Final = ("first", "second", "third")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOutcome:
    """What a retry has come to.

    Attributes:
        retried: letters that are done with: their items went through, or are new letters now.
        failed_again: new letters.
        still_open: letters that the job did not come to, because it was stopped or failed.
        refused: letters whose items cannot be given back, with the reason.
    """

    retried: int
    failed_again: int
    still_open: int
    refused: Mapping[int, str]


class _Letters:
    """The items of letters as `(key, item)`, read one after the other; notes which were given."""

    def __init__(self, store: DeadLetterStore, numbers: Sequence[int], refused: dict[int, str]) -> None:
        self.given: list[int] = []
        self._store = store
        self._numbers = numbers
        self._refused = refused

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for number in self._numbers:
            try:
                item, key = self._store.restore(number)
            except StoreError as error:
                self._refused[number] = str(error)
                continue
            self.given.append(number)
            yield key, item


class DeadLetterRetry:
    """One retry of the open dead letters of a pipeline.

    Each item enters the pipeline at the operator that failed on it, with its key, and goes on from there; sources and
    operators above do not run. `commit` closes the letters whose items have been worked off; what failed again is a
    new letter from then on. A process that is killed before has changed nothing: all letters are still open, and a
    sink may be given the same outputs again by the next retry.

    Args:
        environment: the pipeline, as it is now (mended, or with other settings).
        job_id: only letters of this run.
        operator: only letters of this operator.
        empty_state: go on although operators that keep state (`reduce`, `aggregate`) will begin with none.

    Raises:
        PipelineError: from `with`: a letter is of an operator that the pipeline does not have, or an operator behind
            keeps state, or is a join of whose streams only one would have items.
        StoreError: from `with`: another process is at it, or the letters cannot be read.

    Example:
        >>> import tempfile
        >>> limits = {"largest": 1}
        >>> def check(n):
        ...     if n > limits["largest"]:
        ...         raise ValueError(f"{n} is too large")
        ...     return n
        >>> env = LocalEnvironment("checks", {"home": tempfile.mkdtemp()})
        >>> job = env.from_collection([1, 2, 3]).map(check).print().submit()
        1
        >>> limits["largest"] = 2
        >>> with DeadLetterRetry(env) as retry:
        ...     job = retry.submit()
        ...     outcome = retry.commit(job.wait())
        2
        >>> outcome.retried, outcome.failed_again
        (2, 1)
    """

    def __init__(
        self,
        environment: LocalEnvironment,
        *,
        job_id: str | None = None,
        operator: str | None = None,
        empty_state: bool = False,
    ) -> None:
        self.refused: dict[int, str] = {}
        self.waiting: dict[str, list[int]] = {}
        self._environment = environment
        self._job_id = job_id
        self._operator = operator
        self._empty_state = empty_state
        self._id = new_id("retry")
        self._store = DeadLetterStore(environment.config.home)
        self._sources: dict[str, _Letters] = {}
        # By number of a letter: which stream of an operator on two streams its item came from.
        self._sides: dict[int, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._store)
            if self._store.path.exists():
                stack.enter_context(self._store.exclusive())
                for letter in self._store.read(job_id=self._job_id, operator=self._operator, states=[LetterState.OPEN]):
                    self._sort(letter)
                if self.waiting:
                    self._graph = self._replay_graph()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def count(self) -> int:
        """Letters that will be retried."""
        return sum(map(len, self.waiting.values()))

    def submit(self) -> JobHandle:
        """Start the job that works the letters off; returns at once.

        Raises:
            PipelineError: there is nothing to retry, or the pipeline is wrong.
        """
        if not self.waiting:
            raise PipelineError(f"there are no dead letters of {self._environment.name!r} that can be retried")
        return self._environment.run_graph(self._graph, retry_id=self._id)

    def commit(self, result: JobResult) -> RetryOutcome:
        """Close the letters that the job has worked off, with one durable write; to be called once it has ended.

        A job that failed or was aborted has dropped items under way, so it closes none.

        Raises:
            StoreError: it could not be stored; then all letters are still open.
        """
        done: list[int] = []
        if result.state in (JobState.FINISHED, JobState.STOPPED):
            for source, letters in self._sources.items():
                (offset,) = result.offsets.get(source, [0])
                done += letters.given[:offset]
        if done:
            self._store.commit_retry(self._id, done)
        return RetryOutcome(
            retried=len(done),
            failed_again=result.dead_letters if done else 0,
            still_open=self.count - len(done) - sum(1 for number in self.refused if self._is_waiting(number)),
            refused=dict(self.refused),
        )

    def _is_waiting(self, number: int) -> bool:
        return any(number in numbers for numbers in self.waiting.values())

    def _sort(self, letter: DeadLetter) -> None:
        """Put a letter to those that will be retried, or to those that cannot be."""
        environment = self._environment
        if letter.job != environment.name:
            if self._job_id is not None:
                raise PipelineError(
                    f"job {letter.job_id} ran the pipeline {letter.job!r}, this one is {environment.name!r}"
                )
            return
        if letter.operator not in environment.graph:
            names = [found.name for found in environment.graph.transformations]
            close = difflib.get_close_matches(letter.operator, names, n=1)
            hint = f"did it become {close[0]!r}?" if close else f"there are: {', '.join(names)}"
            raise PipelineError(
                f"dead letter {letter.number} is of operator {letter.operator!r}, which the pipeline does not have; "
                f"{hint}"
            )
        if environment.graph[letter.operator].kind is OperatorKind.SOURCE:
            self.refused[letter.number] = (
                f"source {letter.operator!r} could not read it: mend what it reads and run the pipeline again"
            )
        elif not letter.replayable:
            self.refused[letter.number] = "its item could not be pickled when it was set aside"
        elif "sides" in environment.graph[letter.operator].options and letter.side is None:
            kind = environment.graph[letter.operator].kind
            self.refused[letter.number] = f"it does not say which stream of {kind} {letter.operator!r} it came from"
        else:
            if letter.side is not None:
                self._sides[letter.number] = letter.side
            self.waiting.setdefault(letter.operator, []).append(letter.number)

    # -- the graph of the retry

    def _replay_graph(self) -> LogicalGraph:
        """The operators with letters and all behind them; a source of letters in front of each of the former."""
        whole = self._environment.graph
        kept: set[str] = set(self.waiting)
        found = 0
        while len(kept) > found:  # once, and again where items come back to what stands before
            found = len(kept)
            for transformation in whole.transformations:
                if kept.intersection(transformation.inputs):
                    kept.add(transformation.name)
        graph = LogicalGraph(whole.name)
        graph.services.update(whole.services)
        for transformation in whole.transformations:
            if transformation.name not in kept:
                continue
            added = self._with_letters(graph, transformation, kept)
            self._require_replayable(added)
            graph.add(added)
        return graph

    def _with_letters(
        self, graph: LogicalGraph, transformation: BaseTransformation, kept: set[str]
    ) -> BaseTransformation:
        """The operator with those of its inputs that there are, and the letters in front of it."""
        indices = [index for index, name in enumerate(transformation.inputs) if name in kept]
        inputs = [transformation.inputs[index] for index in indices]
        branches = [transformation.branch(index) for index in indices]
        routings = [transformation.routing(index) for index in indices]
        sides = [transformation.options["sides"][index] for index in indices if "sides" in transformation.options]
        for side, numbers in self._by_side(transformation).items():
            inputs.append(self._add_source(graph, transformation, side, numbers))
            branches.append(None)
            routings.append(None)
            sides += [] if side is None else [side]
        if transformation.kind is OperatorKind.INTERLEAVE:
            transformation, sides = _of_these_streams(transformation, sides)
        return replace(
            transformation,
            options={**transformation.options, "sides": tuple(sides)} if sides else transformation.options,
            inputs=tuple(inputs),
            branches=tuple(branches) if any(branches) else (),
            routings=tuple(routings) if any(routings) else (),
        )

    def _by_side(self, transformation: BaseTransformation) -> dict[int | None, list[int]]:
        """The letters of an operator by the stream that their items came from; all under None where there is one."""
        found: dict[int | None, list[int]] = {}
        for number in self.waiting.get(transformation.name, ()):
            side = self._sides[number] if "sides" in transformation.options else None
            found.setdefault(side, []).append(number)
        return found

    def _add_source(
        self, graph: LogicalGraph, target: BaseTransformation, side: int | None, numbers: Sequence[int]
    ) -> str:
        """A source of letters of an operator; the name of what stands right in front of it."""
        of = target.name if side is None else f"{target.name} {_ordinal(side)} stream"
        name = f"letters of {of}"
        letters = _Letters(self._store, numbers, self.refused)
        self._sources[name] = letters
        source = declare(graph, OperatorKind.SOURCE, IterableSource(letters), name=name)
        before = source.name
        if target.keyed_input:
            keys = declare(graph, OperatorKind.KEY_BY, operators.itemgetter(0), inputs=(before,), name=f"keys of {of}")
            before = keys.name
        items = declare(
            graph,
            OperatorKind.MAP,
            operators.itemgetter(1),
            inputs=(before,),
            keyed_input=target.keyed_input,
            name=f"items of {of}",
        )
        return items.name

    def _require_replayable(self, transformation: BaseTransformation) -> None:
        if transformation.kind is OperatorKind.JOIN and len(set(transformation.options["sides"])) < 2:
            there = transformation.options["sides"][0]
            raise PipelineError(
                f"dead letters cannot be retried through join {transformation.name!r}: only its {_ordinal(there)} "
                f"stream would have items, so none of them would meet a partner, and they would be gone; what it had "
                f"kept of the {_ordinal(1 - there)} one ended with the run: run the pipeline again "
                f"{transformation.where}"
            )
        state = transformation.contract.state
        keeps = (
            (transformation.kind not in _STATELESS and not _is_comap_of_functions(transformation))
            or transformation.options.get("shape") in ("distinct", "limit")
            or state.kind is StateKind.STATEFUL
            or state.keyed
        )
        if keeps and not self._empty_state:
            raise PipelineError(
                f"operator {transformation.name!r} keeps state, which ended with the run: in a retry it would begin "
                f"with none and give results of the retried items alone; to do that, ask for empty state "
                f"{transformation.where}"
            )


def _ordinal(side: int) -> str:
    return _ORDINALS[side] if side < len(_ORDINALS) else f"{side + 1}th"


def _of_these_streams(interleave: BaseTransformation, sides: Sequence[int]) -> tuple[BaseTransformation, list[int]]:
    """An `interleave` of those of its streams that there are: it would wait for the turn of the others."""
    factory = interleave.factory
    assert isinstance(factory, FunctionFactory)
    assert isinstance(factory.target, InterleaveSpec)
    there = sorted(set(sides))
    spec = replace(factory.target, streams=len(there))
    made = FunctionFactory.build(OperatorKind.INTERLEAVE, spec, None, interleave.where)
    return replace(interleave, factory=made), [there.index(side) for side in sides]


def _is_comap_of_functions(transformation: BaseTransformation) -> bool:
    """Whether it is a comap of two plain functions; a class is there to keep something of one stream for the other."""
    factory = transformation.factory
    return isinstance(factory, FunctionFactory) and isinstance(factory.target, CoMapSpec)
