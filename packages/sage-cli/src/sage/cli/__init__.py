"""The `sage` command.

- `entry`: what the shell starts; `main`: options, what an error looks like
- `run_command`, `compile_command` with `plan_diff`, `validate_command`, `operators_command`, `dead_letters_command`,
  `retry_command`, `doctor_command`: one command each
- `terminal`: the standard streams and the progress line; `progress`: what stands in that line
- `interrupts`: Ctrl-C
- `summary`, `report`: the end of a run for people, and as JSON
- `quantities`, `settings`, `versions`, `session`, `exit_codes`, `errors`
"""

from __future__ import annotations

from .exit_codes import ExitCode

__all__ = ["ExitCode"]
