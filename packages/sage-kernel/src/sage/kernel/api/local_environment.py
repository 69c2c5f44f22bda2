"""The environment of a pipeline that runs on this machine (the paper's import path)."""

from __future__ import annotations

import difflib
import inspect
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, field_validator

from sage.common.errors import InvalidArgumentError
from sage.kernel.compiler import CompileOptions, Measurement, NodeCapacity, check_names, compile_graph
from sage.kernel.graph import Contract, ExecutionGraph, LogicalGraph, OperatorKind, PipelineError
from sage.kernel.operators import (
    CallableSource,
    FunctionFactory,
    IterableSource,
    Requests,
    SourceFunction,
    validate_config,
)
from sage.kernel.runtime import JobHandle, JobOptions, start_job
from sage.kernel.runtime import calibrate as measure_operators
from sage.kernel.runtime.dead_letter_budget import DeadLetterBudget
from sage.platform import LocalBackend
from sage.platform.nodes import local_node

from .datastream import DataStream
from .declare import declare, user_location
from .future import FutureStream, declare_future
from .misnomers import no_such_method
from .services import service_spec
from .waiting import wait_interruptible

__all__ = ["EnvironmentConfig", "LocalEnvironment", "PipelineCaptured", "capture_submit"]


class EnvironmentConfig(BaseModel, extra="forbid", frozen=True):
    """How a pipeline is compiled and watched.

    Attributes:
        home: folder of what a run leaves behind (dead letters).
        watchdog_s: seconds without progress, while there is work, after which the job fails; None never.
        grace_s: seconds that a stopped job has to drain.
        abort_grace_s: seconds that an aborted job waits for its tasks.
        hold_heap: while jobs run, the garbage collector leaves alone what was there before them, so that it does not
            stop all threads to look at it; it is given back when they have ended.
        queue_capacity: capacity of each inbox in items; None lets the compiler choose.
        fusion: whether neighbours may share a thread, an event loop or a process.
        coarsen: processes and replicas that are known to cost more than they bring are taken back, or refused where
            the pipeline asks for them; "warn" refuses nothing, False leaves all as it is declared.
        calibrate: measure what an item costs before the first plan is made, see `LocalEnvironment.calibrate`.
        parallelism: replicas by operator name; beats what the pipeline declares.
        max_dead_letters: dead letters that a run may have, as a number or as a share of the items that its sources
            give ("1%"); with more the run fails. None is no limit.
    """

    home: Path = Path(".sage")
    watchdog_s: float | None = Field(default=300.0, gt=0)
    grace_s: float = Field(default=30.0, gt=0)
    abort_grace_s: float = Field(default=5.0, gt=0)
    hold_heap: bool = True
    queue_capacity: int | None = Field(default=None, ge=1)
    fusion: bool = True
    coarsen: bool | Literal["warn"] = True
    calibrate: bool = False
    parallelism: dict[str, int] = Field(default_factory=dict)
    max_dead_letters: int | str | None = None

    @field_validator("max_dead_letters", mode="before")
    @classmethod
    def _budget(cls, value: Any) -> Any:
        try:
            DeadLetterBudget.parse(value)
        except InvalidArgumentError as error:
            raise ValueError(str(error)) from None
        return value


class PipelineCaptured(BaseException):
    """A pipeline file called `submit()` while it was being loaded; whoever loads it runs `environment`
    instead.
    """

    def __init__(self, environment: LocalEnvironment) -> None:
        super().__init__(environment.name)
        self.environment = environment


capture_submit: ContextVar[bool] = ContextVar("sage_capture_submit", default=False)


class LocalEnvironment:
    """Declares a pipeline and runs it on this machine.

    Args:
        name: of the pipeline; stands in messages, metrics and dead letters.
        config: see `EnvironmentConfig`.

    Raises:
        PipelineError: the name is empty.
        ConfigError: a config key is unknown or of the wrong type.

    Example:
        >>> env = LocalEnvironment("squares")
        >>> job = env.from_collection(range(4)).map(lambda n: n * n).print().submit()
        0
        1
        4
        9
        >>> job.result.state.value, job.result.metrics.items_out
        ('finished', 4)
    """

    def __init__(self, name: str, config: Mapping[str, Any] | EnvironmentConfig | None = None) -> None:
        if not isinstance(name, str) or not name.strip():
            raise PipelineError(f"a pipeline needs a name that is not empty, got {name!r} ({user_location()})")
        self.name = name
        self.graph = LogicalGraph(name)
        self.config: EnvironmentConfig = validate_config("LocalEnvironment", EnvironmentConfig, config)
        self._measured: dict[str, Measurement] = {}

    if not TYPE_CHECKING:  # for a type checker there is nothing that is not there

        def __getattr__(self, name: str) -> Any:
            """Say what is meant by a name of a stream."""
            raise no_such_method(
                self,
                name,
                "sink(...) and print() end a stream and return the environment, keep the stream in a variable to go on "
                "from it",
            )

    # -- sources

    def from_source(
        self,
        source: Any,
        config: Mapping[str, Any] | None = None,
        *,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> DataStream:
        """A stream out of a `SourceFunction` class with its config, an instance of one, a function that returns an
        iterable, or a generator function, plain or `async`.

        Args:
            source: where the items come from.
            config: of a class.
            parallelism: replicas; each picks its share by `self.ctx.replica_index`. A function has one.
            contract: what the source needs and promises; a source is not retried.
            name: unique in the pipeline.

        Example:
            >>> def numbers():
            ...     yield from (1, 2)
            >>> LocalEnvironment("demo").from_source(numbers).collect()
            [1, 2]
        """
        if not isinstance(source, type) and not isinstance(source, SourceFunction):
            if not callable(source):
                hint = "use from_collection for items"
                if isinstance(source, (str, Path)):
                    hint = f'to read a file use from_source(FileSource, {{"file_path": {str(source)!r}}})'
                raise PipelineError(
                    f"from_source takes a source class, an instance or a generator function, got {source!r}: {hint} "
                    f"({user_location()})"
                )
            if inspect.iscoroutinefunction(source):
                raise PipelineError(
                    f"from_source cannot use the coroutine function {source!r}, which gives one value: make it an "
                    f"async generator, which yields its items ({user_location()})"
                )
            source = CallableSource(source)
        added = declare(
            self.graph,
            OperatorKind.SOURCE,
            source,
            config,
            parallelism=parallelism,
            contract=contract,
            name=name,
        )
        return DataStream(self, (added.name,))

    def from_collection(
        self,
        items: Iterable[Any],
        *,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> DataStream:
        """A stream out of any iterable, which is read while the pipeline runs; it may be endless.

        Args:
            items: the items; an iterator gives them to one run only.
            parallelism: replicas, between which a list, a tuple or a range is divided; other iterables have one.
            contract: what the source needs and promises.
            name: unique in the pipeline.

        Example:
            >>> LocalEnvironment("demo").from_collection("ab").collect()
            ['a', 'b']
        """
        if not isinstance(items, Iterable):
            raise PipelineError(f"from_collection takes an iterable, got {items!r} ({user_location()})")
        source = IterableSource(items)
        facts: dict[str, Any] = {"parallelism": parallelism, "contract": contract, "name": name}
        added = declare(self.graph, OperatorKind.SOURCE, source, **facts)
        return DataStream(self, (added.name,))

    def from_batch(
        self,
        items: Sequence[Any],
        *,
        parallelism: int | None = None,
        contract: Contract | None = None,
        name: str | None = None,
    ) -> DataStream:
        """A stream out of a finished batch: a sequence, copied now, so that later changes to it do not count. The
        arguments are those of `from_collection`.

        Example:
            >>> batch = [1, 2]
            >>> stream = LocalEnvironment("demo").from_batch(batch)
            >>> batch.append(3)
            >>> stream.collect()
            [1, 2]
        """
        if isinstance(items, str) or not isinstance(items, Sequence):
            raise PipelineError(
                f"from_batch takes a list or another sequence, got {type(items).__name__}: use "
                f"from_collection ({user_location()})"
            )
        return self.from_collection(tuple(items), parallelism=parallelism, contract=contract, name=name)

    def from_future(self, name: str | None = None) -> FutureStream:
        """A stream whose items come later: operators behind it send them back with `fill`. So a pipeline gets a loop.

        Args:
            name: unique in the pipeline.

        Example:
            >>> env = LocalEnvironment("demo")
            >>> again = env.from_future("again")
            >>> tried = env.from_collection([3, 0, 1]).union(again).map(lambda n: n - 1)
            >>> again.fill(tried.filter(lambda n: n > 0), max_in_flight=10)
            >>> sorted(tried.filter(lambda n: n <= 0).collect())
            [-1, 0, 0]
        """
        return declare_future(self, name)

    # -- services

    def from_requests(self, *, name: str = "requests") -> DataStream:
        """The stream of a service's pipeline: what operators of another environment ask. It ends in `.respond()`, and
        each request has one answer on the way there; what an operator raises, is raised at the caller.

        Example:
            >>> from sage.kernel.api import LocalEnvironment, MapFunction
            >>> lengths = LocalEnvironment("lengths")
            >>> answers = lengths.from_requests().map(str.strip).map(len).respond()
            >>> class Ask(MapFunction[str, int]):
            ...     def execute(self, item):
            ...         return self.ctx.call_service("lengths", item)
            >>> env = LocalEnvironment("demo")
            >>> env.register_service("lengths", lengths)
            >>> env.from_collection(["  a", "bb "]).map(Ask).collect()
            [1, 2]
        """
        return DataStream(self, (declare(self.graph, OperatorKind.SOURCE, Requests(), name=name).name,))

    def register_service(
        self,
        name: str,
        service: Any,
        config: Mapping[str, Any] | None = None,
        *,
        concurrency: int | None = None,
    ) -> None:
        """Offer a service to all operators of the pipeline, which call it by its name: `self.ctx.call_service(name,
        request, timeout_s=None)`, in `async` operators `await self.ctx.call_service_async(...)`.

        It is started once per job, before the sources, and ended after the last operator. What it raises is raised at
        the caller.

        Args:
            name: unique in the environment; `Contract(services=(name,))` on an operator says that it will call it, and
                has the name checked when the pipeline is compiled.
            service: a `ServiceFunction` class or instance, a plain or `async` function, or an environment whose
                pipeline begins with `from_requests()` and ends in `.respond()`.
            config: of a class.
            concurrency: most requests that it works on at once, others wait; None is 1 for plain functions, which then
                run on the thread of their `setup`, and 64 for `async` ones and pipelines.

        Raises:
            PipelineError: the name is taken, or this cannot be a service.
            ConfigError: a config key is missing, unknown or of the wrong type.

        Example:
            >>> from sage.kernel.api import LocalEnvironment, MapFunction
            >>> class Priced(MapFunction[str, str]):
            ...     def execute(self, item):
            ...         return f"{item}: {self.ctx.call_service('prices', item, timeout_s=5)}"
            >>> env = LocalEnvironment("demo")
            >>> env.register_service("prices", {"tea": 3, "cake": 4}.get)
            >>> env.from_collection(["tea", "cake"]).map(Priced).collect()
            ['tea: 3', 'cake: 4']
        """
        if service is self:
            raise PipelineError(f"environment {self.name!r} cannot be a service of itself ({user_location()})")
        self.graph.services[name] = service_spec(name, service, config, concurrency, self.graph.services)

    # -- changes before the run

    def configure(self, **changes: Any) -> None:
        """Replace settings of the environment.

        Raises:
            ConfigError: one is unknown or of the wrong type.
        """
        merged = {**self.config.model_dump(), **changes}
        self.config = validate_config("LocalEnvironment", EnvironmentConfig, merged)

    def configure_operator(self, operator: str, changes: Mapping[str, Any]) -> None:
        """Replace config keys of an operator that was declared as a class with a config; `embedding.model` is
        the key `model` in the section `embedding`.

        Raises:
            PipelineError: there is no such operator, or it has no config, or a section is none.
            ConfigError: a key is unknown or of the wrong type.
        """
        if operator not in self.graph:
            names = [found.name for found in self.graph.transformations]
            close = difflib.get_close_matches(operator, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}"
            raise PipelineError(f"there is no operator {operator!r}; {hint}")
        old = self.graph[operator]
        factory = old.factory
        assert isinstance(factory, FunctionFactory)
        if not factory.is_method:
            raise PipelineError(f"operator {operator!r} was not declared as a class with a config {old.where}")
        current = (
            factory.config.model_dump(exclude_unset=True) if isinstance(factory.config, BaseModel) else factory.config
        )
        merged = dict(current)
        for key, value in changes.items():
            _put(merged, key, value, f"(operator {operator!r})")
        new = FunctionFactory.build(old.kind, factory.target, merged, old.where)
        self.graph.replace(replace(old, factory=new))
        self._measured.clear()

    # -- compile and run

    def compile(self) -> ExecutionGraph:
        """The plan that `submit` would run.

        Raises:
            PipelineError: the pipeline is wrong.
        """
        return self._compile(self.graph)

    def calibrate(self) -> Mapping[str, Measurement]:
        """Measure what an item costs each operator, on at most 64 first items of the real sources, in about a second.
        All plans from now on are made with it: where the contract says nothing, a plain function that computes in
        Python gets a process and one that waits a thread; hand-overs that cost more than they bring are spared.

        Classes are made, set up, called and torn down for it, functions are called: **they see these items once more
        than in the run**, with all they do outside. Not called are sinks, instances, what keeps state or has keys, and
        sources that wait or give their items once; they, and what is behind them, are left as declared. An item that
        takes longer is waited for.

        Returns:
            What was measured, or why not, by operator; the plan's notes (`--explain`) say the same.

        Example:
            >>> import time
            >>> env = LocalEnvironment("demo")
            >>> calls = env.from_collection([1, 2, 3]).map(lambda n: time.sleep(0.01), name="ask").print()
            >>> measured = env.calibrate()["ask"]
            >>> measured.items, 0.01 <= measured.wall_s, measured.cpu_share < 0.5
            (2, True, True)
        """
        self._measured = measure_operators(self.graph)
        return dict(self._measured)

    def _compile(self, graph: LogicalGraph) -> ExecutionGraph:
        if self.config.calibrate and not all(known.name in self._measured for known in self.graph.transformations):
            self.calibrate()
        check_names(self.config.parallelism, (known.name for known in self.graph.transformations), "parallelism")
        given = {name: count for name, count in self.config.parallelism.items() if name in graph}
        options = CompileOptions(
            parallelism=given,
            fusion=self.config.fusion,
            queue_capacity=self.config.queue_capacity,
            node=_node_for(graph),
            measured=self._measured,
            coarsen=self.config.coarsen,
        )
        return compile_graph(graph, options)

    def subgraph(self, ends: Iterable[str]) -> LogicalGraph:
        """A new graph of these operators and all that lead to them."""
        wanted: set[str] = set()
        queue = list(ends)
        while queue:
            name = queue.pop()
            if name not in wanted:
                wanted.add(name)
                queue.extend(self.graph[name].inputs)
        graph = LogicalGraph(self.name)
        graph.services.update(self.graph.services)
        for transformation in self.graph.transformations:
            if transformation.name in wanted:
                graph.add(transformation)
        return graph

    def run_graph(
        self,
        graph: LogicalGraph,
        offsets: Mapping[str, list[Any]] | None = None,
        *,
        retry_id: str = "",
        answers: frozenset[str] | None = None,
    ) -> JobHandle:
        """Compile and start a graph of this environment; returns at once. `retry_id` says that it is a retry of dead
        letters, `answers` which operators lead to the answer of a service's pipeline.

        Raises:
            PipelineError: the pipeline is wrong, or a pipeline file runs a part of itself while it is being loaded.
        """
        if capture_submit.get():
            raise PipelineError(
                f"a pipeline file declares its pipeline and does not run it: end the stream with .sink(...) or "
                f".print() instead of .collect(), or put that behind `if __name__ == '__main__'` ({user_location()})"
            )
        options = JobOptions(
            home=self.config.home,
            watchdog_s=self.config.watchdog_s,
            grace_s=self.config.grace_s,
            abort_grace_s=self.config.abort_grace_s,
            max_dead_letters=self.config.max_dead_letters,
            retry_id=retry_id,
            hold_heap=self.config.hold_heap,
        )
        return start_job(self._compile(graph), graph, LocalBackend(), options, offsets, answers)

    def submit(self, wait: bool = True, *, offsets: Mapping[str, list[Any]] | None = None) -> JobHandle:
        """Compile the pipeline and run it.

        Args:
            wait: return when it has ended; False returns at once. While waiting, Ctrl-C stops the sources and
                drains; a second one aborts.
            offsets: where sources begin, as an earlier run's `result.offsets` says.

        Raises:
            PipelineError: the pipeline is wrong.
            JobFailedError: it failed (only while waiting).
            KeyboardInterrupt: Ctrl-C; the job has been drained or aborted by then.
        """
        if capture_submit.get():
            raise PipelineCaptured(self)
        job = self.run_graph(self.graph, offsets)
        if wait:
            wait_interruptible(job.wait, job)
        return job


def _put(config: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set a key, or with dots the key of a section (made where it is missing; copied, not changed)."""
    section, dot, rest = key.partition(".")
    if not dot:
        config[key] = value
        return
    inner = config.get(section, {})
    if not isinstance(inner, Mapping):
        raise PipelineError(f"config key {section!r} is no section, got {inner!r}: {key!r} cannot be set {where}")
    config[section] = dict(inner)
    _put(config[section], rest, value, where)


def _node_for(graph: LogicalGraph) -> NodeCapacity:
    """This machine; what it has is looked up only when an operator asks for some of it."""
    needs = (operator.contract.resources for operator in graph.transformations)
    if not any(need.cpu or need.gpu or need.memory_bytes for need in needs):
        return NodeCapacity(name=socket.gethostname())
    node = local_node()
    return NodeCapacity(name=node.name, cpus=node.cpus, gpus=node.gpus, memory_bytes=node.memory_bytes)
