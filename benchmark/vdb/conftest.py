"""pytest: the shared modules import as they do for the scripts; what needs a peer's package is left alone."""

from __future__ import annotations

import sys
from pathlib import Path

collect_ignore_glob = ["*_peer.py", "*_ingest.py"]

sys.path.insert(0, str(Path(__file__).parent))
