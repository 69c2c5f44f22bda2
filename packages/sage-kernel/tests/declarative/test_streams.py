"""Several streams in a file: branches, side outputs, two inputs, loops, services; and their results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sage.kernel.declarative import load_pipeline_file

YamlFile = Callable[..., Path]
Output = pytest.CaptureFixture[str]


def run(path: Path, capsys: Output) -> list[str]:
    load_pipeline_file(path).submit()
    return capsys.readouterr().out.splitlines()


def test_a_split_by_conditions_and_one_by_a_function(yaml_file: YamlFile, steps: Path, capsys: Output) -> None:
    path = yaml_file("""
        pipeline: p
        operators:
          - collection: [{eur: 1}, {eur: 20}, {eur: 300}]
          - split:
              by:
                cheap: {field: eur, below: 10}
                dear: {field: eur, above: 100}
            name: price
          - print: "cheap "
            input: price/cheap
          - print: "dear "
            input: price/dear
          - print: "other "
            input: price/rest
          - collection: [3, -4]
          - split: {by: steps:sign, into: [positive, negative]}
            name: signs
          - print: "both "
            input: [signs/negative, signs/positive]
          - print: "negative "
            input: {from: signs, branch: negative}
    """)
    assert sorted(run(path, capsys)) == [
        "both -4", "both 3", "cheap {'eur': 1}", "dear {'eur': 300}", "negative -4", "other {'eur': 20}",
    ]  # fmt: skip


def test_side_outputs(yaml_file: YamlFile, steps: Path, capsys: Output) -> None:
    path = yaml_file("""
        pipeline: p
        operators:
          - collection: [2, 5]
          - map: steps:Half
          - print: "half "
          - print: "odd "
            input: Half/odd
    """)
    assert sorted(run(path, capsys)) == ["half 1", "half 2", "odd 5"]


def test_two_streams(yaml_file: YamlFile, steps: Path, capsys: Output) -> None:
    path = yaml_file("""
        pipeline: p
        operators:
          - collection: [{cur: eur, n: 10}]
          - key_by: {field: cur}
            name: orders
          - collection: [{cur: usd, rate: 3}]
          - key_by: {field: cur}
            name: rates
          - comap: steps:Priced
            input: [orders, rates]
          - print: "comap "
          - comap: {map1: builtins:len, map2: builtins:str}
            input: [[orders, rates], [orders]]
          - print: "each "
          - join: {kind: left}
            input: [orders, rates]
          - print: "join "
          - collection: [["ad", 0.0], ["ad", 50.0]]
          - key_by: steps:first
            name: views
          - collection: [["ad", 3.0]]
          - key_by: steps:first
            name: clicks
          - join: {within: [0, 10], time: {field: "1"}, lateness_s: 100}
            input: [views, clicks]
          - print: "click "
    """)
    assert sorted(run(path, capsys)) == [
        "click (['ad', 0.0], ['ad', 3.0])", "comap 10", "comap rate", "each 2", "each 2",
        "each {'cur': 'eur', 'n': 10}", "join ({'cur': 'eur', 'n': 10}, None)",
    ]  # fmt: skip


def test_order_batches_and_routing(yaml_file: YamlFile, steps: Path, capsys: Output) -> None:
    path = yaml_file("""
        pipeline: p
        operators:
          - collection: [1, 2, 3, 4, 5]
            name: in
          - map: steps:slow_if_odd
            parallelism: 2
          - ordered: {max_ahead: 3}
          - print: "a "
          - map: steps:slow_if_odd
            input: {from: in, routing: rebalance}
            parallelism: 3
          - sink: terminal_sink
            config: {prefix: "b "}
            ordered: true
          - map: steps:all_squares
            batch: {size: 3, max_wait_s: null}
            input: in
          - print: "c "
          - map: steps:square
            input: {from: in, routing: broadcast}
            parallelism: 2
          - print: "d "
          - collection: [x, y]
            name: letters
          - interleave:
            input: [in, letters]
          - print: "e "
    """)
    lines = run(path, capsys)
    taken = {prefix: [line[2:] for line in lines if line.startswith(prefix)] for prefix in "abcde"}
    assert taken["a"] == taken["b"] == ["1", "2", "3", "4", "5"]
    assert taken["c"] == ["1 of 3", "4 of 3", "9 of 3", "16 of 2", "25 of 2"]
    assert sorted(taken["d"]) == sorted(["1", "4", "9", "16", "25"] * 2)
    assert taken["e"] == ["1", "x", "2", "y", "3", "4", "5"]


def test_a_loop(yaml_file: YamlFile, steps: Path, capsys: Output) -> None:
    path = yaml_file("""
        pipeline: collatz
        operators:
          - future:
            name: again
          - collection: [[6, 0], [7, 0]]
          - map: steps:collatz
            input: [collection, again]
          - filter: steps:not_one
          - fill: {future: again, max_in_flight: 100}
          - filter: steps:one
            input: collatz
          - print:
    """)
    assert sorted(run(path, capsys)) == ["[1, 16]", "[1, 8]"]


def test_a_loop_of_few_rounds(yaml_file: YamlFile, steps: Path, capsys: Output) -> None:
    path = yaml_file("""
        pipeline: collatz
        operators:
          - future:
            name: again
          - collection: [[6, 0], [7, 0]]
          - map: steps:collatz
            input: [collection, again]
          - filter: steps:not_one
          - fill: {future: again, max_rounds: 9}
          - filter: steps:one
            input: collatz
          - print: "done "
          - print: "left "
            input: again/exhausted
    """)
    assert sorted(run(path, capsys)) == ["done [1, 8]", "left [10, 10]"]


def test_services(yaml_file: YamlFile, steps: Path, capsys: Output) -> None:
    path = yaml_file("""
        pipeline: p
        services:
          square: steps:square
          names:
            service: steps:Lookup
            config: {de: Germany}
            concurrency: 1
          lengths:
            environment: {queue_capacity: 3}
            operators:
              - requests:
              - map: builtins:str.strip
              - map: builtins:len
              - respond:
        operators:
          - collection: [3]
          - map: steps:Ask
            config: {service: square}
            contract: {services: [square]}
          - print: "square "
          - collection: [de]
            name: codes
          - map: steps:Ask
            config: {service: names}
          - print: "name "
          - collection: [" ab "]
          - map: steps:Ask
            config: {service: lengths}
          - print: "length "
    """)
    assert sorted(run(path, capsys)) == ["length 2", "name Germany", "square 9"]


def test_a_list_of_one_input_forgets_the_key(yaml_file: YamlFile, steps: Path) -> None:
    path = yaml_file("""
        pipeline: p
        operators:
          - collection: [1]
          - key_by: steps:square
            name: keyed
          - map: steps:square
            name: with_key
          - print:
          - map: steps:square
            name: without
            input: [keyed]
          - print:
    """)
    graph = load_pipeline_file(path).graph
    assert (graph["with_key"].keyed_input, graph["without"].keyed_input) == (True, False)


def test_a_sink_in_order_brings_its_own_operator(yaml_file: YamlFile, steps: Path) -> None:
    path = yaml_file("""
        pipeline: p
        operators:
          - collection: [1]
          - sink: terminal_sink
            ordered: true
          - ordered:
            input: collection
          - sink: terminal_sink
    """)
    graph = load_pipeline_file(path).graph
    assert [each.name for each in graph.transformations] == [
        "collection", "ordered", "terminal_sink", "ordered-2", "terminal_sink-2",
    ]  # fmt: skip
