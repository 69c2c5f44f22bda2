"""Sources and sinks.

- `lines`: `FileSource`, `JSONLSource`; `tables`: `CSVSource`
- `documents`: `DirectorySource` over `markup` (HTML and Markdown to text)
- `generated`: `GeneratorSource`, `RateSource`
- `files`: `JSONLSink`, `CSVSink`; `terminal`: `TerminalSink`
- `positions`: the base of sources that seek; `paths`: clear errors for wrong paths
"""

from __future__ import annotations

from .documents import DirectorySource
from .files import CSVSink, JSONLSink
from .generated import GeneratorSource, RateSource
from .lines import FileSource, JSONLSource
from .positions import PositionedSource
from .tables import CSVSource
from .terminal import TerminalSink

__all__ = [
    "CSVSink",
    "CSVSource",
    "DirectorySource",
    "FileSource",
    "GeneratorSource",
    "JSONLSink",
    "JSONLSource",
    "PositionedSource",
    "RateSource",
    "TerminalSink",
]
