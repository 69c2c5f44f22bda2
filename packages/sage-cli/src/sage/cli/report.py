"""The end of a run as one JSON object."""

from __future__ import annotations

from typing import Any

import msgspec

from sage.kernel.api import JobResult
from sage.kernel.runtime.dead_letters import DeadLetter

from .exit_codes import ExitCode

__all__ = ["dead_letter_fields", "result_json"]


def result_json(result: JobResult, first: DeadLetter | None, code: ExitCode) -> str:
    """A job's result on one line.

    The keys are those of `JobResult`, with `exit_code`, `metrics.throughput` (items per second) and
    `first_dead_letter` besides. Times are in the units that their names end with. An offset that has no JSON
    form is given as text.
    """
    metrics: dict[str, Any] = msgspec.to_builtins(result.metrics, enc_hook=repr)
    metrics["throughput"] = result.metrics.throughput
    fields = {
        "job_id": result.job_id,
        "name": result.name,
        "state": result.state.value,
        "exit_code": int(code),
        "reason": result.reason,
        "dead_letters": result.dead_letters,
        "dead_letters_path": result.dead_letters_path,
        "first_dead_letter": None if first is None else dead_letter_fields(first),
        "offsets": result.offsets,
        "metrics": metrics,
    }
    return msgspec.json.encode(fields, enc_hook=repr).decode()


def dead_letter_fields(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as JSON values. `item` is text, `item_json` the item itself where it is JSON-able; the
    pickled item is left out, `replayable` says whether there is one.
    """
    fields: dict[str, Any] = msgspec.structs.asdict(letter)
    for stored in ("payload", "key_payload", "json_exact"):
        del fields[stored]
    fields["replayable"] = letter.replayable
    if letter.item_json is not None:
        fields["item_json"] = msgspec.json.decode(letter.item_json)
    return fields
