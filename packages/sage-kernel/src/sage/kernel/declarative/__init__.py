"""Pipelines out of YAML files, with the meaning of the Python ones.

- `build`: `load_pipeline_file`, `check_pipeline_file`; `declaring`, `operations`, `targets`: what a file says, through
  the DSL
- `kinds`, `specification`, `forms`, `inputs`: the form of one operator
- `document`, `substitution`, `findings`: values with their places, `${VAR}`, everything that is wrong at once
- `registry`: operators by name; `describe`: what is known of one
- `write`, `write_inputs`: a Python pipeline as a YAML file; `schema`: JSON Schema for editors
"""

from __future__ import annotations

from .build import check_pipeline_file, load_pipeline_file
from .document import is_yaml
from .findings import Finding, PipelineFileError
from .registry import GROUP, OperatorRegistry, RegisteredOperator

__all__ = [
    "GROUP",
    "Finding",
    "OperatorRegistry",
    "PipelineFileError",
    "RegisteredOperator",
    "check_pipeline_file",
    "is_yaml",
    "load_pipeline_file",
]
