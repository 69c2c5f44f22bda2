"""sage_db: an embedded vector database.

- `database`: `open`, `memory`, `Database`, `verify`
- `collection`: `Collection`
- `expressions`: `field`, conditions on metadata
- `results`: `Hits`, `Documents`, `Explanation`
- `exchange`: `import_into`, `export_to`: Chroma, faiss, hnswlib, Parquet, npz, JSON Lines
- `faiss_engine`: `FaissCollection`, any index of faiss behind the same face
"""

from __future__ import annotations

from sage.middleware._vdb import index_kinds

from .collection import Collection
from .database import Database, memory, open, verify
from .exchange import EXPORT_FORMATS, IMPORT_FORMATS, export_to, import_into
from .expressions import Expression, Field, field
from .faiss_engine import FaissCollection
from .results import Document, Documents, Explanation, Hit, Hits, HitsBatch

__all__ = [
    "EXPORT_FORMATS",
    "IMPORT_FORMATS",
    "Collection",
    "Database",
    "Document",
    "Documents",
    "Explanation",
    "Expression",
    "FaissCollection",
    "Field",
    "Hit",
    "Hits",
    "HitsBatch",
    "export_to",
    "field",
    "import_into",
    "index_kinds",
    "memory",
    "open",
    "verify",
]
