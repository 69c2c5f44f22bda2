"""What a stream offers beside own functions: `split`, side outputs, `distinct`, `limit`, `ordered`, `sample`."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from sage.kernel.graph import EXHAUSTED, Contract, OperatorKind, PipelineError
from sage.kernel.operators import REST, DistinctSpec, LimitSpec, OrderedSpec, SampleSpec, SplitSpec

from .base_stream import BaseStream
from .declare import user_location
from .misnomers import no_such_method

__all__ = ["SplitStreams", "StreamShapes"]

Stream = TypeVar("Stream", bound=BaseStream)

_SIDE_OUTPUTS = frozenset(
    {OperatorKind.MAP, OperatorKind.FLATMAP, OperatorKind.FILTER, OperatorKind.COMAP, OperatorKind.JOIN}
)


class SplitStreams(Mapping[str, Stream], Generic[Stream]):
    """The streams of a split by the names of their branches; "rest" is there too, but not counted among them.

    Raises:
        PipelineError: there is no branch of that name.
    """

    def __init__(self, stream: Stream, operator: str, names: tuple[str, ...]) -> None:
        self._stream = stream
        self._operator = operator
        self._names = names

    def __getitem__(self, name: str) -> Stream:
        if name not in self._names and name != REST:
            close = difflib.get_close_matches(str(name), [*self._names, REST], n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(self._names)} and {REST}"
            raise PipelineError(f"split {self._operator!r} has no branch {name!r}; {hint} ({user_location()})")
        return self._stream._next(self._operator, name)

    if not TYPE_CHECKING:  # for a type checker there is nothing that is not there

        def __getattr__(self, name: str) -> Any:
            """Say what is meant by a name of a stream."""
            raise no_such_method(self, name, "a split gives several streams, take one by its name: parts['name']")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class StreamShapes(BaseStream):
    """Operators that need no function of the user, or only one that looks at an item."""

    def split(
        self,
        by: Mapping[str, Callable[[Any], Any]] | Callable[[Any], Any],
        into: Iterable[str] | None = None,
        *,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> SplitStreams[Self]:
        """Each item to one of several streams.

        An item that fits no branch goes to the branch "rest". Items of a branch that nobody takes are dropped and
        counted (`dropped.<branch>` in the metrics).

        Args:
            by: predicates by branch name, the first that is true decides; or a function (also an `async` one) that
                gives the name of an item's branch.
            into: the names of the branches, where `by` is a function.
            parallelism: replicas.
            contract: what the operator needs, keeps and promises.
            name: unique in the pipeline.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> numbers = LocalEnvironment("demo").from_collection([1, -2, 0, 3])
            >>> parts = numbers.split({"positive": lambda n: n > 0, "negative": lambda n: n < 0})
            >>> parts["positive"].collect(), parts["negative"].collect(), parts["rest"].collect()
            ([1, 3], [-2], [0])
        """
        spec = _split_spec(by, into)
        facts: dict[str, Any] = {"parallelism": parallelism, "contract": contract, "name": name}
        added = self._add(OperatorKind.SPLIT, spec, default_name="split", **facts)
        return SplitStreams(self, added, spec.names)

    def side_output(self, branch: str) -> Self:
        """The items that the operator just before has put out with `self.ctx.side_output(branch, item)`.

        They are passed on together with what the call returns: a call that raises puts out nothing, so a retry puts
        nothing out twice. A `join(within=)` has the side output "late", the future of a loop with `max_rounds` has
        "exhausted".

        Raises:
            PipelineError: the stream is not that of one map, flatmap, filter or comap.

        Example:
            >>> from sage.kernel.api import LocalEnvironment, MapFunction
            >>> class Half(MapFunction):
            ...     def execute(self, number):
            ...         if number % 2:
            ...             self.ctx.side_output("odd", number)
            ...         return number // 2
            >>> halves = LocalEnvironment("demo").from_collection([2, 5]).map(Half)
            >>> halves.collect(), halves.side_output("odd").collect()
            ([1, 2], [5])
        """
        if not isinstance(branch, str) or not branch:
            raise PipelineError(f"a side output is named by a text, got {branch!r} ({user_location()})")
        feed = self._feeds[0] if len(self._feeds) == 1 else None
        kind = None if feed is None else self._env.graph[feed.operator].kind
        if feed is not None and kind is OperatorKind.FUTURE and branch == EXHAUSTED:
            return self._next(feed.operator, branch)
        if feed is None or feed.branch is not None or kind not in _SIDE_OUTPUTS:
            what = "several streams" if feed is None else f"{feed.operator!r}, a {kind}"
            raise PipelineError(
                f"side_output takes from a map, flatmap, filter, comap or join just before it, got {what} "
                f"({user_location()})"
            )
        return self._next(feed.operator, branch)

    def distinct(
        self,
        key: Callable[[Any], Any] | None = None,
        *,
        max_keys: int | None = None,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Self:
        """Passes the first item of each kind and drops the others. Behind `key_by`, items of different keys differ.

        Args:
            key: what two items are compared by, a hashable value; None compares the items.
            max_keys: how many kinds are remembered, oldest forgotten first: an item whose like was forgotten passes
                again. None remembers all until the job ends.
            parallelism: replicas; more than one needs `key_by` before it.
            contract: what the operator needs, keeps and promises.
            name: unique in the pipeline.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> words = LocalEnvironment("demo").from_collection(["a", "B", "A", "b", "c"])
            >>> words.distinct(str.lower).collect()
            ['a', 'B', 'c']
        """
        if key is not None and (not callable(key) or inspect.iscoroutinefunction(key)):
            raise PipelineError(f"distinct takes a plain function as key, got {key!r} ({user_location()})")
        if max_keys is not None:
            _check_count("distinct max_keys", max_keys, 1)
        spec = DistinctSpec(key, self._keyed, max_keys)
        why = "" if self._keyed else "distinct of several replicas would pass an item once by each: call key_by before"
        facts: dict[str, Any] = {"parallelism": parallelism, "contract": contract, "name": name}
        return self._next(self._shape(spec, "distinct", why, facts))

    def limit(self, items: int, *, contract: Contract | None = None, name: str | None = None) -> Self:
        """Passes the first `items` items and ends the stream early: sources whose items can reach no sink any more
        end, and what they have emitted until then is dropped here. A source that waits for its next item ends when
        that comes.

        Args:
            items: how many; 0 passes none.
            contract: what the operator needs, keeps and promises.
            name: unique in the pipeline.

        Example:
            >>> import itertools
            >>> from sage.kernel.api import LocalEnvironment
            >>> LocalEnvironment("demo").from_collection(itertools.count()).limit(3).collect()
            [0, 1, 2]
        """
        _check_count("limit", items, 0)
        why = "a limit counts all items, so it has one replica"
        return self._next(
            self._shape(LimitSpec(items), "limit", why, {"parallelism": 1, "contract": contract, "name": name})
        )

    def ordered(self, *, max_ahead: int = 10_000, name: str | None = None) -> Self:
        """Puts the items back into the order of their source, whatever replicas, `async` calls and branches have done
        to it. Where nothing can have changed the order it costs nothing; `--explain` says so.

        What an item has given on its way follows the item before it and comes before the next one; dropped items and
        dead letters leave no gap. Items of several sources, or of several replicas of one, alternate: the first of
        each, the second of each, and so on; a source that pauses holds up the others. Where streams meet again
        (`union`, `comap`), what one item gave to the first stream comes first. What is emitted at the end of the stream
        comes last, by the first item of each key.

        Args:
            max_ahead: items that the sources may be ahead of the oldest one that is still on its way; they wait then.
                It bounds how many items wait for their turn here.
            name: unique in the pipeline.

        Example:
            >>> import time
            >>> from sage.kernel.api import LocalEnvironment
            >>> def slow_if_even(number):
            ...     time.sleep(0 if number % 2 else 0.01)
            ...     return number
            >>> numbers = LocalEnvironment("demo").from_collection(range(8))
            >>> numbers.map(slow_if_even, parallelism=2).ordered().collect()
            [0, 1, 2, 3, 4, 5, 6, 7]
        """
        _check_count("ordered max_ahead", max_ahead, 1)
        options = {"max_ahead": max_ahead, "single": "ordered() gives one order, so it has one replica"}
        facts: dict[str, Any] = {"parallelism": 1, "name": name, "options": options}
        return self._next(self._add(OperatorKind.ORDERED, OrderedSpec(), default_name="ordered", **facts))

    def sample(
        self,
        fraction: float | None = None,
        *,
        every: int | None = None,
        seed: int = 0,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> Self:
        """Passes some of the items: each with a probability, or each n-th one.

        Args:
            fraction: probability of each item, 0 to 1.
            every: instead of it: 10 passes the first of each ten items, of each replica.
            seed: the same seed draws the same, as long as items come in the same order.
            parallelism: replicas.
            contract: what the operator needs, keeps and promises.
            name: unique in the pipeline.

        Example:
            >>> from sage.kernel.api import LocalEnvironment
            >>> numbers = LocalEnvironment("demo").from_collection(range(10))
            >>> numbers.sample(every=4).collect(), numbers.sample(0.3, seed=1).collect()
            ([0, 4, 8], [5, 7])
        """
        if (fraction is None) is (every is None):
            raise PipelineError(f"sample takes a fraction or every=, one of the two ({user_location()})")
        if fraction is not None and (
            isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1
        ):
            raise PipelineError(f"sample takes a fraction from 0 to 1, got {fraction!r} ({user_location()})")
        if every is not None:
            _check_count("sample every", every, 1)
        _check_count("sample seed", seed, -math.inf)
        facts: dict[str, Any] = {"parallelism": parallelism, "contract": contract, "name": name}
        return self._next(self._shape(SampleSpec(fraction, every, seed), "sample", "", facts))

    def _shape(self, spec: Any, shape: str, single: str, facts: dict[str, Any]) -> str:
        options = {"shape": shape, **({"single": single} if single else {})}
        return self._add(OperatorKind.FILTER, spec, default_name=shape, options=options, **facts)


def _check_count(what: str, given: Any, minimum: float) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or given < minimum:
        at_least = "" if minimum == -math.inf else f" >= {minimum:g}"
        raise PipelineError(f"{what} must be a whole number{at_least}, got {given!r} ({user_location()})")


def _split_spec(by: Any, into: Iterable[str] | None) -> SplitSpec:
    where = user_location()
    if isinstance(by, Mapping):
        if into is not None:
            raise PipelineError(f"split by predicates names its branches there: leave out into= ({where})")
        names, predicates, chooser = tuple(by), tuple(by.values()), None
        for name, predicate in by.items():
            if not callable(predicate) or inspect.iscoroutinefunction(predicate):
                raise PipelineError(f"split takes a plain function for branch {name!r}, got {predicate!r} ({where})")
    elif callable(by) and not isinstance(by, type):
        if into is None or isinstance(into, str):
            raise PipelineError(
                f"split by a function needs the names of its branches: into=['a', 'b'], got {into!r} ({where})"
            )
        names, predicates, chooser = tuple(into), (), by
    else:
        raise PipelineError(f"split takes predicates by name, or a function that gives a name, got {by!r} ({where})")
    if not names or len(set(names)) < len(names):
        raise PipelineError(f"split needs at least one branch, each with its own name, got {list(names)!r} ({where})")
    for name in names:
        if not isinstance(name, str) or not name or name == REST:
            hint = "what fits no branch goes there" if name == REST else "a branch is named by a text"
            raise PipelineError(f"a branch cannot be named {name!r}: {hint} ({where})")
    return SplitSpec(names, predicates, chooser)
