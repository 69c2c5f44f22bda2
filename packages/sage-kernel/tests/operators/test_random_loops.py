"""Random loops against the reference, on every execution kind."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from executions import ExecutionKind
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from strategies import VALUES, Op, Pipeline, describe
from test_semantics import check_against, expect, run, switching  # noqa: F401  # a fixture


@st.composite
def loops(draw: st.DrawFn) -> Pipeline:
    """One or two loops behind each other, of any body that `strategies` knows."""
    ops = [Op("source", items=tuple(draw(st.lists(VALUES, max_size=25))))]
    for _ in range(draw(st.integers(1, 2))):
        awaits = draw(st.booleans())
        ops.append(
            Op(
                "loop",
                inputs=(len(ops) - 1,),
                branches=("",),
                tag=draw(st.integers(0, 40)),
                variant=draw(st.integers(0, 4)),
                parallelism=draw(st.integers(1, 3)),
                capacity=draw(st.one_of(st.none(), st.integers(1, 3))),
                awaits=awaits,
                sleeps=draw(st.booleans()),
                concurrency=draw(st.integers(1, 5)) if awaits else 1,
                fails=draw(st.sampled_from([0, 0, 1])),
                retries=draw(st.integers(0, 1)),
            )
        )
    ops.append(Op("sink", inputs=(len(ops) - 1,), branches=("",)))
    return Pipeline(tuple(ops), fusion=draw(st.booleans()), queue_capacity=draw(st.sampled_from([None, 1, 2, 5])))


RANDOM = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@RANDOM
@given(pipeline=loops())
@pytest.mark.timeout(120)
def test_random_loops_equal_the_reference(execution: ExecutionKind, switching: None, pipeline: Pipeline) -> None:  # noqa: F811
    note(describe(pipeline))
    check_against(expect(pipeline, execution), run(pipeline, execution))


@settings(RANDOM, max_examples=40)
@given(pipeline=loops(), delay_ms=st.floats(0, 6))
@pytest.mark.timeout(120)
def test_a_stopped_loop_works_off_what_is_inside(
    execution_here: ExecutionKind, pipeline: Pipeline, delay_ms: float
) -> None:
    note(f"stopped after {delay_ms} ms\n{describe(pipeline)}")

    def stop(job: Any) -> None:
        time.sleep(delay_ms / 1000)
        job.stop(20)

    got = run(pipeline, execution_here, stop)
    (offset,) = got.result.offsets["source0"]
    source = pipeline.ops[0]
    made = replace(pipeline, ops=(replace(source, items=source.items[: offset or 0]), *pipeline.ops[1:]))
    check_against(expect(made, execution_here), got)
