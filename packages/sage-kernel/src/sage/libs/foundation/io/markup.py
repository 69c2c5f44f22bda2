"""HTML and Markdown to plain text with a title."""

from __future__ import annotations

import datetime
import re
from html.parser import HTMLParser
from typing import Any

import yaml

__all__ = ["html_to_text", "split_front_matter", "markdown_title"]

_SKIPPED = frozenset({"script", "style", "template", "noscript", "svg", "math", "iframe", "object"})
_BLOCKS = frozenset(
    "address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption"
    " figure footer form"
    " h1 h2 h3 h4 h5 h6 header hr html legend li main menu nav ol optgroup option p pre section summary"
    " table tbody td tfoot"
    " th thead tr ul".split()
)
_FRONT_MATTER_CHARACTERS_MAX = 64 * 1024


class _TextOfHTML(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.title_parts: list[str] = []
        self._skip: str | None = None
        self._skip_depth = 0
        self._in_title = False
        self._pre_depth = 0

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        """`<![...>` ends at the next '>', as in browsers; the base class raises for what it does not know."""
        end = self.rawdata.find(">", i + 3)
        return end + 1 if end >= 0 else -1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._skip is not None:
            self._skip_depth += tag == self._skip
            return
        if tag in _SKIPPED:
            self._skip, self._skip_depth = tag, 1
        elif tag == "title" and not self.title_parts:
            self._in_title = True
        elif tag == "br":
            self.parts.append("\n")
        elif tag in _BLOCKS:
            self._pre_depth += tag == "pre"
            self._block(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # `<script/>` is not closed in HTML, but skipping all that follows would lose the page of a careless
        # author.
        if tag not in _SKIPPED and tag != "title":
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self._skip is not None:
            if tag == self._skip:
                self._skip_depth -= 1
                if self._skip_depth == 0:
                    self._skip = None
            return
        if tag == "title":
            self._in_title = False
        elif tag in _BLOCKS:
            self._pre_depth = max(0, self._pre_depth - (tag == "pre"))
            if tag not in {"td", "th", "li"}:
                self._block("")

    def handle_data(self, data: str) -> None:
        if self._skip is not None:
            return
        if self._in_title:
            self.title_parts.append(data)
        elif self._pre_depth:
            self.parts.append(data)
        else:
            # White space of HTML means nothing more than one space.
            words = " ".join(data.split())
            lead = " " if data[:1].isspace() else ""
            tail = " " if words and data[-1:].isspace() else ""
            self.parts.append(lead + words + tail)

    def _block(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self.parts.append(" | ")
        elif tag in {"li", "dd", "tr", "option"}:
            self.parts.append("\n- " if tag == "li" else "\n")
        else:
            self.parts.append("\n\n")


def _without_comments(markup: str) -> str:
    """Drop comments and leave no '<' without a '>' behind it: both cost HTMLParser quadratic time on hostile
    input.
    """
    kept: list[str] = []
    place = 0
    while (start := markup.find("<!--", place)) >= 0:
        kept.append(markup[place:start])
        end = markup.find("-->", start + 4)
        if end < 0:
            place = len(markup)  # a comment that is never closed reaches to the end (HTML standard)
            break
        place = end + 3
    kept.append(markup[place:])
    text = "".join(kept)
    last = text.rfind(">") + 1
    return text[:last] + text[last:].replace("<", "&lt;")


def html_to_text(markup: str) -> tuple[str, str | None]:
    """Return `(text, title)` of an HTML page: paragraphs apart by blank lines, no scripts and styles.

    Title is that of the page, None where it has none. Broken markup is read as far as it makes sense; nothing
    is raised.

    Example:
        >>> page = "<title>T</title><script>x=1</script><h1>Head</h1><p>A <b>b</b>\\nline.<ul><li>a<li>b</ul>"
        >>> html_to_text(page)
        ('Head\\n\\nA b line.\\n\\n- a\\n- b', 'T')
    """
    parser = _TextOfHTML()
    parser.feed(_without_comments(markup))
    parser.close()
    lines = [line.rstrip() for line in "".join(parser.parts).split("\n")]
    kept: list[str] = []
    for line in lines:
        line = line.lstrip(" ").removeprefix("| ") if line.startswith(" ") and not line.startswith("  ") else line
        if line or (kept and kept[-1]):
            kept.append(line)
    title = " ".join("".join(parser.title_parts).split())
    return "\n".join(kept).strip("\n"), title or None


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Return `(fields, body)` of a Markdown text that may begin with YAML between two `---` lines.

    Only scalars and lists of scalars are kept. What is not valid YAML, larger than 64 KiB or uses aliases is
    no front matter: it stays in the body, so that nothing gets lost.

    Example:
        >>> split_front_matter("---\\ntitle: A guide\\ntags: [x, y]\\n---\\nBody")
        ({'title': 'A guide', 'tags': ['x', 'y']}, 'Body')
        >>> split_front_matter("---\\nnot closed")
        ({}, '---\\nnot closed')
    """
    if not text.startswith(("---\n", "---\r\n")):
        return {}, text
    found = re.compile(r"^(?:---|\.\.\.)[ \t]*\r?\n?$", re.MULTILINE).search(text, 4, _FRONT_MATTER_CHARACTERS_MAX)
    if found is None:
        return {}, text
    head = text[text.index("\n") + 1 : found.start()]
    try:
        # Aliases would let 64 KiB grow without bound when written out again.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(head, Loader=yaml.SafeLoader)):
            return {}, text
        loaded = yaml.safe_load(head)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}, text
    if not isinstance(loaded, dict):
        return {}, text
    fields = {str(key): _plain(value) for key, value in loaded.items() if _is_plain(value)}
    return fields, text[found.end() :].lstrip("\r\n")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return not any(isinstance(part, list | dict | set | tuple) for part in value)
    return not isinstance(value, dict | set | tuple)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, datetime.date | datetime.datetime):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def markdown_title(body: str) -> str | None:
    """The first heading of a Markdown text, or None; looks at the first 200 lines.

    Example:
        >>> markdown_title("intro\\n\\n# The *title* #\\n")
        'The title'
        >>> markdown_title("Title\\n=====\\ntext")
        'Title'
    """
    lines = body[:20_000].split("\n")[:200]
    fenced = False
    for place, line in enumerate(lines):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        if fenced:
            continue
        title = ""
        if line.startswith("# "):
            title = line[2:].strip().rstrip("#")
        elif place + 1 < len(lines) and line.strip() and re.fullmatch(r"={3,}\s*", lines[place + 1]):
            title = line
        title = title.replace("`", "").replace("*", "").strip()
        if title:
            return title
    return None
