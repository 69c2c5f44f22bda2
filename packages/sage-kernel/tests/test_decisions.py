"""The pure parts of the runtime against brute force: job master, batch limit, packets, routers, edges, chains."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sage.common.errors import InvalidArgumentError
from sage.kernel.graph import Emit, ErrorPolicy, IOSpec, OperatorKind, Routing
from sage.kernel.operators import OperatorContext
from sage.kernel.packet import EndOfStream, Packet
from sage.kernel.routing import (
    BroadcastRouter,
    ForwardRouter,
    KeyHashRouter,
    LeastLoadedRouter,
    RoundRobinRouter,
    TargetLoad,
    create_router,
)
from sage.kernel.runtime import job_master as jm
from sage.kernel.runtime.chain import Chain, SetAside
from sage.kernel.runtime.codegen import ChainShape
from sage.kernel.runtime.edges import OutputEdge
from sage.kernel.runtime.steps import KeyGuard, Step
from sage.kernel.runtime.task import BatchLimit
from sage.kernel.telemetry import OperatorCounters
from sage.platform import ChannelSpec, LocalChannel

SETTINGS = settings(max_examples=200, deadline=None)


# -- job master -----------------------------------------------------------------------------------------------


class JobMasterMachine(RuleBasedStateMachine):
    """Any sequence of events; what the master may and must do is kept beside it."""

    WATCHDOG_S, GRACE_S = 3.0, 2.0

    @initialize(count=st.integers(1, 3))
    def begin(self, count: int) -> None:
        self.tasks = [f"t[{number}]" for number in range(count)]
        self.master = jm.JobMaster(self.tasks, watchdog_s=self.WATCHDOG_S, abort_grace_s=self.GRACE_S)
        self.now = 100.0
        self.ready: set[str] = set()
        self.ended: set[str] = set()
        self.started = self.stopped = False
        self.failure: BaseException | None = None
        self.aborted_at: float | None = None
        self.effects: list[jm.Effect] = []
        self.still_since: float | None = None
        self.seen: Any = None

    def on(self, event: jm.Event) -> list[jm.Effect]:
        effects = self.master.on(event, self.now)
        over = any(isinstance(effect, jm.Complete) for effect in self.effects)
        assert not (over and effects), "nothing comes after the end"
        self.effects += effects
        for effect in effects:
            if isinstance(effect, jm.OpenSources):
                assert self.started
                assert self.ready == set(self.tasks) | self.ready
                assert self.aborted_at is None
            if isinstance(effect, jm.Abort):
                assert self.aborted_at is None, "aborted once only"
                self.aborted_at = self.now
        return effects

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.5]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.started)
    @rule()
    def start(self) -> None:
        self.started = True
        self.on(jm.Started())

    @rule(number=st.integers(0, 2))
    def task_ready(self, number: int) -> None:
        task = self.tasks[number % len(self.tasks)]
        if task not in self.ready | self.ended:
            self.ready.add(task)
            self.on(jm.TaskReady(task))

    @rule(number=st.integers(0, 2), fails=st.booleans())
    def task_ended(self, number: int, fails: bool) -> None:
        task = self.tasks[number % len(self.tasks)]
        if task in self.ended or not self.started:
            return
        self.ended.add(task)
        failure = ValueError(task) if fails else None
        was_over = self.master.state.is_end
        effects = self.on(jm.TaskEnded(task, failure))
        if was_over:
            return
        self.failure = self.failure or failure
        if len(self.ended) == len(self.tasks):
            (complete,) = [effect for effect in effects if isinstance(effect, jm.Complete)]
            assert complete.abandoned == ()
            if self.failure is not None:
                assert complete.state is jm.JobState.FAILED, "an error beats an abort"
                assert complete.failure is self.failure, "the first error is the reason"
            elif self.aborted_at is None:
                assert complete.state is (jm.JobState.STOPPED if self.stopped else jm.JobState.FINISHED)
            else:
                assert complete.state in (jm.JobState.ABORTED, jm.JobState.FAILED)
                assert complete.reason

    @rule(grace_s=st.sampled_from([0.1, 2.0, 50.0]))
    def stop(self, grace_s: float) -> None:
        effects = self.on(jm.StopRequested(grace_s))
        assert effects in ([], [jm.StopSources()])
        if effects:
            assert not self.stopped
            self.stopped = True
            self.deadline = self.now + grace_s

    @rule()
    def abort(self) -> None:
        self.on(jm.AbortRequested("somebody wants it"))

    @rule(progress=st.integers(0, 1), in_work=st.booleans(), queued=st.integers(0, 1))
    def tick(self, progress: int, in_work: bool, queued: int) -> None:
        views = {task: jm.TaskView(progress, in_work=in_work, queued=queued, doing="things") for task in self.tasks}
        aborted_at, was_over = self.aborted_at, self.master.state.is_end
        watching = self.started and aborted_at is None and not was_over
        work = (in_work or queued) and len(self.ended) < len(self.tasks)
        late = self.stopped and self.now >= self.deadline
        effects = self.on(jm.Tick(views))
        if was_over:
            assert effects == []
        elif aborted_at is not None:
            over = self.now - aborted_at >= self.GRACE_S
            assert [type(effect) for effect in effects] == ([jm.Complete] if over else [])
            if over:
                complete = effects[0]
                assert isinstance(complete, jm.Complete)
                assert complete.abandoned == tuple(sorted(set(self.tasks) - self.ended))
        elif late:
            assert effects == [jm.Abort()]
        elif effects:
            assert effects == [jm.Abort()]
            assert watching
            assert work, "the watchdog needs work"
            assert self.still_since is not None
            assert self.now - self.still_since >= self.WATCHDOG_S
        if watching and not late:
            if not work or self.seen != progress:
                self.still_since, self.seen = (self.now, progress) if work else (None, None)
            elif self.still_since is not None and self.now - self.still_since >= self.WATCHDOG_S:
                assert effects == [jm.Abort()], "the watchdog must bite"

    @invariant()
    def one_end_at_most(self) -> None:
        if hasattr(self, "effects"):
            ends = [effect for effect in self.effects if isinstance(effect, jm.Complete)]
            assert len(ends) <= 1
            assert bool(ends) == self.master.state.is_end
            assert sum(isinstance(effect, jm.OpenSources) for effect in self.effects) <= 1


TestJobMaster = JobMasterMachine.TestCase
TestJobMaster.settings = settings(max_examples=200, stateful_step_count=25, deadline=None)


def test_watchdog_message_shows_the_wait_for_picture() -> None:
    master = jm.JobMaster(["a[0]", "b[0]"], watchdog_s=1.0)
    master.on(jm.Started(), 0.0)
    for task in ("a[0]", "b[0]"):
        master.on(jm.TaskReady(task), 0.0)
    views = {
        "a[0]": jm.TaskView(1, in_work=False, queued=3, doing="waiting for room downstream"),
        "b[0]": jm.TaskView(1, in_work=True, queued=8, doing="in operator 'b'", stack=lambda: "line one\nline two\n"),
    }
    assert master.on(jm.Tick(views), 1.0) == []
    assert master.on(jm.Tick(views), 1.9) == []
    assert master.on(jm.Tick(views), 2.0) == [jm.Abort()]
    master.on(jm.TaskEnded("a[0]"), 2.1)
    (complete,) = master.on(jm.TaskEnded("b[0]"), 2.1)
    assert isinstance(complete, jm.Complete)
    assert complete.state is jm.JobState.FAILED
    assert "no progress for 1 s although there is work (limit: watchdog_s=1)" in complete.reason
    assert "a[0]: waiting for room downstream, 3 queued" in complete.reason
    assert "line two" in complete.reason


# -- batch limit ----------------------------------------------------------------------------------------------


@SETTINGS
@given(
    maximum=st.integers(1, 4096),
    batches=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 10**11)), max_size=50),
)
def test_batch_limit_stays_in_its_bounds(maximum: int, batches: list[tuple[int, int]]) -> None:
    limit = BatchLimit(maximum=maximum)
    for items, elapsed in batches:
        before = limit.items
        after = limit.update(items, elapsed)
        assert 1 <= after <= maximum
        assert after <= 2 * before, "grows by doubling at most"
        if elapsed > limit.target_ns:
            assert after <= before
            assert after == 1 or after * elapsed <= limit.target_ns * max(1, items)


@pytest.mark.parametrize("per_item_ns", [100, 10_000, 1_000_000, 10_000_000])
def test_batch_limit_settles_near_its_target(per_item_ns: int) -> None:
    limit = BatchLimit()
    for _ in range(30):
        limit.update(limit.items, limit.items * per_item_ns)
    took = limit.items * per_item_ns
    assert limit.items in (1, 1024) or limit.target_ns / 4 <= took <= limit.target_ns


# -- packets --------------------------------------------------------------------------------------------------

packets = st.builds(
    lambda rows, keyed, stamped, index, enqueued: Packet(
        [row[0] for row in rows],
        keys=[row[1] for row in rows] if keyed else None,
        origins=[row[2] for row in rows] if stamped else 7,
        input_index=index,
        enqueued_ns=enqueued * len(rows),
    ),
    st.lists(st.tuples(st.integers(), st.integers(), st.integers(0, 99)), min_size=1, max_size=12),
    st.booleans(),
    st.booleans(),
    st.integers(0, 1),
    st.integers(0, 1000),
)


def rows_of(packet: Packet) -> list[tuple[Any, Any, int]]:
    origins = [packet.origins] * len(packet) if isinstance(packet.origins, int) else packet.origins
    keys = [None] * len(packet) if packet.keys is None else packet.keys
    return list(zip(packet.values, keys, origins, strict=True))


@SETTINGS
@given(packet=packets, data=st.data())
def test_a_packet_that_is_cut_and_joined_is_the_same(packet: Packet, data: st.DataObject) -> None:
    before, enqueued = rows_of(packet), packet.enqueued_ns
    if len(packet) == 1:
        return
    head, rest = packet.split(data.draw(st.integers(1, len(packet) - 1)))
    assert rows_of(head) + rows_of(rest) == before
    assert head.enqueued_ns + rest.enqueued_ns == enqueued
    assert rows_of(packet) == before, "the packet itself is left alone"
    assert head.absorb(rest)
    assert rows_of(head) == before
    assert (head.enqueued_ns, len(head), head.size) == (enqueued, len(before), len(before))


@SETTINGS
@given(one=packets, other=packets, share=st.booleans())
def test_packets_join_only_with_their_like(one: Packet, other: Packet, share: bool) -> None:
    left, right = rows_of(one), rows_of(other)
    view = one.view(one.input_index) if share else None
    second_view = one.view(one.input_index) if share else None
    target = view or one
    like = one.input_index == other.input_index and (one.keys is None) == (other.keys is None)
    assert target.absorb(other) is like
    assert rows_of(target) == (left + right if like else left)
    assert rows_of(other) == right
    if second_view is not None:
        assert rows_of(second_view) == left, "the lists of a shared packet are not appended to"
        assert rows_of(one) == left
    assert not one.absorb(EndOfStream("x", one.input_index))


# -- routers --------------------------------------------------------------------------------------------------


@SETTINGS
@given(packets=st.lists(packets, min_size=1, max_size=6), targets=st.integers(1, 5), data=st.data())
def test_routers_place_each_item_once(packets: list[Packet], targets: int, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([ForwardRouter, BroadcastRouter, RoundRobinRouter, KeyHashRouter]))
    router = kind(targets)
    counts = [0] * targets
    for packet in packets:
        if kind is KeyHashRouter and packet.keys is None:
            continue
        before = rows_of(packet)
        parts, rest = router.route(packet)
        assert rest is None
        assert len({target for target, _ in parts}) == len(parts), "one part for each target"
        numbered = {target: rows_of(part) for target, part in parts}
        for target, part in parts:
            assert 0 <= target < targets
            assert len(part) > 0
            assert part.input_index == packet.input_index
            counts[target] += len(part)
            assert _is_subsequence(numbered[target], before), "in order"
        if kind is BroadcastRouter:
            assert list(numbered.values()) == [before] * targets
        else:
            assert Counter(row for rows in numbered.values() for row in rows) == Counter(before)
    if kind is RoundRobinRouter:
        assert max(counts) - min(counts) <= 1, "shares are equal over all packets"


def _is_subsequence(part: list[Any], whole: list[Any]) -> bool:
    rest = iter(whole)
    return all(any(found == item for found in rest) for item in part)


KEYS: list[Hashable] = [None, 0, 1, -1, "", "a", "ключ", b"", b"\x00", (), (1, (2, None)), 2.5, True, 10**30]


def test_key_hash_is_the_same_in_another_process() -> None:
    code = (
        "from sage.kernel.routing import KeyHashRouter; import ast, sys; "
        "print([[KeyHashRouter(n).target_of(k) for k in ast.literal_eval(sys.argv[1])] for n in (1, 3, 7, 64)])"
    )
    there = subprocess.run(
        [sys.executable, "-c", code, repr(KEYS)], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    here = [[KeyHashRouter(targets).target_of(key) for key in KEYS] for targets in (1, 3, 7, 64)]
    assert there.strip() == repr(here)


def test_key_hash_spreads_keys() -> None:
    router = KeyHashRouter(8)
    found = Counter(router.target_of(f"user-{number}") for number in range(8000))
    assert set(found) == set(range(8))
    assert max(found.values()) < 1.5 * min(found.values())


def brute_force_maximum(items: int, loads: list[TargetLoad]) -> Counter[int]:
    """Place one item after the other where the load is least; the multiset of loads that comes of it."""
    current = [[load.load, load.room] for load in loads]
    for _ in range(items):
        open_targets = [entry for entry in current if entry[1] > 0]
        if not open_targets:
            break
        least = min(open_targets, key=lambda entry: entry[0])
        least[0] += 1
        least[1] -= 1
    return Counter(load for load, _ in current)


@SETTINGS
@given(
    loads=st.lists(st.builds(TargetLoad, st.integers(0, 9), st.integers(0, 6)), min_size=1, max_size=6),
    packets=st.lists(packets, min_size=1, max_size=3),
)
def test_least_loaded_fills_as_water_does(loads: list[TargetLoad], packets: list[Packet]) -> None:
    router = LeastLoadedRouter(len(loads))
    for packet in packets:
        before, parts, rest = rows_of(packet), *router.route(packet, loads)
        placed: dict[int, int] = {target: len(part) for target, part in parts}
        got = [row for _, part in parts for row in rows_of(part)] + (rows_of(rest) if rest else [])
        assert Counter(got) == Counter(before)
        for target, part in parts:
            assert 0 < len(part) <= loads[target].room
            assert _is_subsequence(rows_of(part), before)
        if rest is not None:
            assert sum(placed.values()) == sum(load.room for load in loads), "what comes back has no room anywhere"
            assert rows_of(rest) == before[len(before) - len(rest) :], "what comes back is the end"
        after = Counter(load.load + placed.get(target, 0) for target, load in enumerate(loads))
        assert after == brute_force_maximum(len(packet), loads)


def test_least_loaded_goes_round_when_all_are_alike() -> None:
    router = LeastLoadedRouter(3)
    loads = [TargetLoad(0, 10)] * 3
    assert [router.route(Packet([n]), loads)[0][0][0] for n in range(6)] == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("routing", list(Routing))
def test_a_router_needs_a_target(routing: Routing) -> None:
    assert create_router(routing, 2).targets == 2
    with pytest.raises(InvalidArgumentError, match="at least 1 target, got 0"):
        create_router(routing, 0)


# -- edges ----------------------------------------------------------------------------------------------------


class Contested(LocalChannel[Any]):
    """A channel into which another writer puts items between a look at its room and the next put."""

    def __init__(self, name: str, capacity: int) -> None:
        super().__init__(ChannelSpec(name, capacity=capacity))
        self.theft = 0

    def try_put(self, message: Any) -> Any:
        for _ in range(self.theft):
            super().try_put(Packet(["stolen"], input_index=9))
        self.theft = 0
        return super().try_put(message)


@SETTINGS
@given(
    capacities=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 10), min_size=1, max_size=5),
    routing=st.sampled_from([Routing.LEAST_LOADED, Routing.ROUND_ROBIN]),
    data=st.data(),
)
def test_an_edge_keeps_the_order_towards_each_target(
    capacities: list[int], sizes: list[int], routing: Routing, data: st.DataObject
) -> None:
    """Also when other writers take the room that was seen; nothing is lost, nothing comes twice."""
    channels = [Contested(str(number), capacity) for number, capacity in enumerate(capacities)]
    edge = OutputEdge("p[0]", create_router(routing, len(channels)), channels, 0, time.monotonic_ns)
    got: dict[int, list[int]] = defaultdict(list)

    def drain() -> None:
        for number, channel in enumerate(channels):
            for _ in range(data.draw(st.integers(0, 3))):
                packet = channel.try_get(2)
                if packet is not None and packet.input_index == 0:
                    got[number].extend(packet.values)
            channel.theft = data.draw(st.integers(0, 2))

    sent = 0
    for size in sizes:
        drain()
        full = edge.try_send(Packet(list(range(sent, sent + size))))
        sent += size
        rounds = 0
        while full:
            assert all(channel.spec.name.isdigit() for channel in full)
            rounds += 1
            if rounds > 30:
                for channel in channels:
                    channel.theft = 0
                    while (packet := channel.try_get(9)) is not None:
                        if packet.input_index == 0:
                            got[int(channel.spec.name)].extend(packet.values)
            else:
                drain()
            full = edge.advance()
    for number, channel in enumerate(channels):
        while (packet := channel.try_get(9)) is not None:
            if packet.input_index == 0:
                got[number].extend(packet.values)
    note(f"{dict(got)}")
    assert sorted(item for items in got.values() for item in items) == list(range(sent))
    for items in got.values():
        assert items == sorted(items), "first in, first out for each target"


# -- generated code and step by step --------------------------------------------------------------------------


class Letters:
    """Dead letters in memory."""

    def __init__(self) -> None:
        self.found: list[tuple[str, Any, Any, int, str]] = []

    def add(self, letter: SetAside) -> None:
        self.found.append((letter.operator, letter.item, letter.key, letter.attempts, str(letter.error)))


def _refusing(modulus: int, function: Any) -> Any:
    def call(*arguments: Any) -> Any:
        value = arguments[-1]
        if modulus and hash(repr(value)) % modulus == 0:
            raise ValueError(repr(value))
        return function(*arguments)

    return call


def _steps(kinds: list[tuple[str, int, str, int]]) -> list[Step]:
    steps = []
    for position, (kind, modulus, emit, retries) in enumerate(kinds):
        name = f"{kind}{position}"
        function: Any = {
            "map": lambda value: ("m", value),
            "filter": lambda value: hash(repr(value)) % 4,
            "flatmap": lambda value: [(number, value) for number in range(hash(repr(value)) % 3)],
            "key_by": lambda value: hash(repr(value)) % 3,
            "reduce": lambda one, two: (repr(one)[-9:], two),
            "aggregate": lambda count, value: (*count[-3:], value),
            "sink": lambda value: None,
        }[kind]
        steps.append(
            Step(
                name=name,
                kind=OperatorKind(kind),
                call=_refusing(modulus, function),
                function=None,
                context=OperatorContext(name),
                io=IOSpec(errors=ErrorPolicy(retries=retries, delay_s=0)),
                counters=OperatorCounters(name),
                emit=Emit(emit),
                create=tuple,
                result=len if modulus == 5 else None,
                guard=KeyGuard(name) if kind == "key_by" else None,
            )
        )
    return steps


def _chain(steps: list[Step], letters: Letters, out: list[Any], *, keys_in: bool, keys_out: bool) -> Chain:
    def flush() -> None:
        outputs = chain.outputs
        keys = outputs.keys if keys_out else [None] * len(outputs.values)
        out.extend(zip(outputs.values, keys, strict=True))
        outputs.clear()

    chain = Chain(
        steps,
        source=None,
        shape=ChainShape(keys_in=keys_in, keys_out=keys_out),
        dead_letters=letters,
        flush=flush,
        pause=lambda seconds: None,
        now=time.monotonic_ns,
        out_limit=4,
    )
    return chain


chain_kinds = st.lists(
    st.tuples(
        st.sampled_from(["map", "filter", "flatmap", "key_by", "reduce", "aggregate"]),
        st.sampled_from([0, 0, 2, 3, 5]),
        st.sampled_from(["each", "final"]),
        st.integers(0, 2),
    ),
    max_size=6,
)


@SETTINGS
@given(
    kinds=chain_kinds,
    sink=st.booleans(),
    batches=st.lists(st.lists(st.integers(-5, 30), min_size=1, max_size=12), max_size=4),
    timed=st.lists(st.booleans(), min_size=4, max_size=4),
    counted=st.booleans(),
    keyed=st.booleans(),
)
def test_generated_code_and_step_by_step_agree(
    kinds: list[tuple[str, int, str, int]],
    sink: bool,
    batches: list[list[int]],
    timed: list[bool],
    counted: bool,
    keyed: bool,
) -> None:
    kinds = [
        (kind, *rest) if kind in ("reduce", "aggregate") else (kind, rest[0], "each", rest[2]) for kind, *rest in kinds
    ]
    kinds += [("sink", 3, "each", 1)] if sink else []
    note(f"{kinds} keyed={keyed} {batches}")
    keys_out = not sink
    results = []
    for generated in (True, False):
        steps, letters, out = _steps(kinds), Letters(), list[Any]()
        chain = _chain(steps, letters, out, keys_in=keyed, keys_out=keys_out)
        for number, batch in enumerate(batches):
            rows = [(value, value % 2) for value in batch]
            if generated:
                code = chain.code(timed=timed[number], origins_in=False, counted=counted or keyed)
                chain.run_batch(iter(rows) if keyed else iter(batch), len(batch), code)
            else:
                for value, key in rows:
                    chain.process(0, value, key if keyed else None, None, fresh=True)
            chain._flush()
        chain.finish(chain._flush)
        counters = [
            (step.counters.items_in, step.counters.items_out, step.counters.errors, step.counters.retries,
             step.counters.dead_letters) for step in steps
        ]  # fmt: skip
        results.append((out, letters.found, counters, [step.state for step in steps]))
    assert results[0][0] == results[1][0], "outputs"
    assert results[0][1] == results[1][1], "dead letters"
    assert results[0][2] == results[1][2], "counters"
    assert results[0][3] == results[1][3], "state"
