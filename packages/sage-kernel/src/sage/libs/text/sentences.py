"""Splits text into sentences, in linear time and without losing a character."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["iterate_sentences", "split_sentences"]

_CLOSERS = "\"'”’)\\]»*_`"
# All quantifiers are possessive (`++`, `*+`), and a run of terminators is only entered at its first
# character: no input makes the search go back, so 50 MB on one line cost the same as 50 MB of lines.
_MARK = re.compile(
    rf"""
      (?P<heading> ^[ ]{{0,3}}\#{{1,6}}[ \t][^\n]*+ )  # a heading is a line of its own
    | (?P<stop> (?<![.!?…]) [.!?…]++ [{_CLOSERS}]*+ (?: [ \t]++ | (?=\s|\Z) ) )
    | (?P<cjk> [。！？｡．]++ [」』”’）】》〉]*+ )
    | (?P<gap> \n (?:[ \t\r]*+\n)++ )                                       # blank lines
    | (?P<line> \n (?=[ \t]*+ (?: [-*+•][ \t] | \d{{1,4}}[.)][ \t] | \|  | ``` | ~~~ ) ) )  # item, row, fence
    """,
    re.VERBOSE | re.MULTILINE,
)
_SPACE = re.compile(r"\s*+")
_LAST_WORD_CHARACTERS = 24
_ABBREVIATION_CHARACTERS_MAX = 8

# These never end a sentence: a name, a number or an example follows.
_NEVER_LAST = frozenset(
    "mr mrs ms dr prof rev gen col capt lt sgt st mt hon sen rep gov pres fig figs eq eqs sec secs ch chap"
    " vol vols ed eds pp"
    " vs cf e.g eg i.e ie viz approx ca resp incl ref refs al nr art"
    " jan feb mar apr jun jul aug sep sept oct nov dec z.b bzw ggf usw d.h".split()
)
# These may: they do when a capital follows.
_MAYBE_LAST = frozenset(
    "etc inc ltd co corp bros jr sr ph.d m.d b.a m.a a.m p.m u.s u.k e.u u.n dept univ assn est ave blvd rd".split()
)
_NUMBER_NEXT = frozenset({"no", "nos", "p", "art", "nr", "ver", "v"})


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Return the spans `(start, end)` of the sentences of `text`; together they cover each character once, in
    order.

    White space behind a sentence belongs to it. Known are abbreviations (`Dr.`, `e.g.`, `etc.`), initials,
    decimals, ellipses, closing quotes, Chinese and Japanese punctuation, blank lines, and Markdown headings,
    list items, table rows and fences. The rules are for languages that write like English; an abbreviation
    that is not known costs a split too many, never text.

    Time is linear in the length of `text`.

    Example:
        >>> text = "Dr. Who paid 3.50 dollars... at noon. Why? Ask!"
        >>> [text[start:end] for start, end in split_sentences(text)]
        ['Dr. Who paid 3.50 dollars... at noon. ', 'Why? ', 'Ask!']
        >>> text = "# Head\\nOne\\n- a\\n- b\\n\\n東京。大阪。"
        >>> [text[start:end] for start, end in split_sentences(text)]
        ['# Head\\n', 'One\\n', '- a\\n', '- b\\n\\n', '東京。', '大阪。']
    """
    return list(iterate_sentences(text))


def iterate_sentences(text: str) -> Iterator[tuple[int, int]]:
    """The spans of `split_sentences`, one at a time.

    Example:
        >>> next(iterate_sentences("One. Two."))
        (0, 5)
    """
    length = len(text)
    start = 0
    first = True
    skip_space = _SPACE.match
    for found in _MARK.finditer(text):
        kind = found.lastgroup
        begin, end = found.span()
        if kind == "heading" and begin > start and not text[start:begin].isspace():
            yield start, begin
            start, first = begin, False
        elif kind == "stop" and not _ends_sentence(text, start, begin, end):
            continue
        if end < length and text[end].isspace():
            space = skip_space(text, end)
            end = space.end() if space else end
        # White space at the very beginning has no sentence before it: it goes to the first one.
        if end > start and (not first or end == length or not text[start:end].isspace()):
            yield start, end
            start, first = end, False
    if start < length:
        yield start, length


def _ends_sentence(text: str, start: int, mark: int, end: int) -> bool:
    first = text[end : end + 1]
    if not first or first.isspace():
        space = _SPACE.match(text, end)
        first = text[space.end() : space.end() + 1] if space else ""
        if not first:
            return True
    if first.islower():
        # "... he said", '"Really?" she asked': the sentence goes on.
        return False
    if text[mark] != "." or text[mark : mark + 2] == "..":
        return True
    begin = max(start, mark - _LAST_WORD_CHARACTERS)
    words = text[begin:mark].rsplit(None, 1)
    if not words:
        return False
    word = words[-1]
    if len(word) > _ABBREVIATION_CHARACTERS_MAX:
        return True
    word = word.lstrip("([{\"'“‘«*_`")
    low = word.casefold()
    if low in _NEVER_LAST:
        return False
    if low in _NUMBER_NEXT:
        return not first.isdigit()
    if low in _MAYBE_LAST:
        return first.isupper()
    if len(word) == 1 and word.isalpha() and word.isupper():
        # An initial ("J. K. Rowling") unless it is a word of its own ("and so did I.").
        return word == "I"
    # "1. First item" at the beginning of a line is a number of a list and not a sentence.
    alone = word.isdigit() and len(word) <= 4 and not text[start : mark - len(word)].strip()
    return not alone
