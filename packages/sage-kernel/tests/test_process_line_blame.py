"""Who is blamed when one of the processes in a line ends: the item that it has, and no other."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from environments import letters
from test_process_lines import STAGES, lined, once

from sage.kernel.api import MapFunction


def killing(folder: Path, stage: int, victim: int, holder: int, times: int) -> type[MapFunction[int, int]]:
    """A stage of a line. Item 5 takes its process along once, so that rows are worked on alone then. While the holder
    has item 9 alone, it kills the process of another stage, so often.
    """

    class Work(MapFunction[int, int]):
        def setup(self) -> None:
            (folder / f"stage-{stage}").write_text(str(os.getpid()))

        def execute(self, item: int) -> int:
            if item == 5 and stage == holder and once(folder, "five"):
                os._exit(3)
            if item == 9 and stage == holder and any(once(folder, f"nine-{number}") for number in range(times)):
                os.kill(int((folder / f"stage-{victim}").read_text()), signal.SIGKILL)
                time.sleep(0.1)
            return item

    return Work


@pytest.mark.parametrize(("holder", "victim"), [(0, 1), (0, 3), (2, 0), (2, 1), (2, 3), (3, 2)])
def test_who_works_on_an_item_alone_is_not_blamed_for_the_end_of_another_process(
    tmp_path: Path, holder: int, victim: int
) -> None:
    functions = [killing(tmp_path, stage, victim, holder, 2) for stage in range(STAGES)]
    result, out = lined(tmp_path, range(20), functions)
    assert out == list(range(20))
    assert not letters(tmp_path)
    assert [found.errors for found in result.metrics.operators] == [0] * (STAGES + 2)


def test_an_item_that_is_lost_again_and_again_with_others_is_set_aside(tmp_path: Path) -> None:
    """Else a job whose item ends its neighbours would never end."""
    functions = [killing(tmp_path, stage, 0, 2, 1000) for stage in range(STAGES)]
    result, out = lined(tmp_path, range(20), functions)
    assert out == [item for item in range(20) if item != 9]
    (letter,) = letters(tmp_path)
    assert (letter.operator, letter.item, letter.attempts) == ("s2", "9", 1)
    assert "was killed by SIGKILL" in letter.error
    assert result.dead_letters == 1
