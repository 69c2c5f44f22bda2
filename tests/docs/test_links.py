"""The relative links of the Markdown documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    document
    for pattern in ("*.md", "docs/**/*.md", "packages/*/*.md", "changes/README.md", "cpp/**/*.md")
    for document in ROOT.glob(pattern)
    if "_build" not in document.parts
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def links_of(text: str) -> list[str]:
    """The targets in `text` that are neither addresses nor places on the same page, without their anchors.

    Code is no place for a link: ``xs[i](x)`` would look like one.
    """
    targets = LINK.findall(CODE.sub("", text))
    return [target.split("#")[0] for target in targets if not re.match(r"[a-z+]+:|#", target)]


def test_the_reading_of_links() -> None:
    text = "[a](b.md#c) [d](https://e.org/f) [g](#h) ![i](j/k.png)\n```py\nxs[0](y.md)\n```\n`z[1](w)` [`l`](m)"
    assert links_of(text) == ["b.md", "j/k.png", "m"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    dangling = [
        link for link in links_of(document.read_text(encoding="utf-8")) if not (document.parent / link).exists()
    ]
    assert dangling == []
