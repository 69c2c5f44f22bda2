"""Tokens for retrieval: words in any script, without case, optionally without stop words and endings."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

__all__ = ["STOPWORDS", "stem", "tokenize"]

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+(?:['’][^\W_{_CJK}]+)?")
_IS_CJK = re.compile(rf"[{_CJK}]")
# Words that only look as if they had an ending.
_WHOLE = frozenset({"embed", "shed", "sled", "hundred", "anything", "everything", "something", "nothing"})
_SHORT = re.compile(r"[^aeiouy][aeiouy][^aeiouwxy]")
_VOWEL = re.compile(r"[aeiouy]")

STOPWORDS: frozenset[str] = frozenset(
    "a about above after again all also am an and any are as at be because been before being below between"
    " both but by can"
    " could did do does doing down during each few for from further had has have having he her here hers"
    " him his how i if in"
    " into is it its itself just let may me might more most must my no nor not of off on once only or"
    " other our ours out over"
    " own please same shall she should so some such tell than that the their theirs them then there these"
    " they this those"
    " through to too under until up us very was we were what when where which while who whom whose why"
    " will with would you"
    " your yours".split()
)


def tokenize(text: str, *, stemming: bool = False, stopwords: bool = True) -> list[str]:
    """Return the tokens of `text`: Unicode words (NFKC, case folded), and pairs of neighbours in Chinese,
    Japanese, Korean.

    Args:
        text: anything.
        stemming: take off light English endings, see `stem`.
        stopwords: whether English stop words stay.

    Example:
        >>> tokenize("The Operator's key_by() in Straße")
        ['the', 'operator', 'key', 'by', 'in', 'strasse']
        >>> tokenize("東京都 is big", stopwords=False)
        ['東京', '京都', 'big']
        >>> tokenize("indexes indexing", stemming=True)
        ['index', 'index']
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    tokens: list[str] = []
    for word in _TOKEN.findall(text.casefold()):
        if not word.isascii():
            if _IS_CJK.match(word):
                tokens += [word] if len(word) == 1 else [word[place : place + 2] for place in range(len(word) - 1)]
                continue
            word = word.replace("’", "'")
        word = word.removesuffix("'s")
        if not stopwords and word in STOPWORDS:
            continue
        tokens.append(stem(word) if stemming else word)
    return tokens


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Take a light English ending off `word`: plurals, `-ed`, `-ing` (step 1 of Porter, 1980, "An algorithm
    for suffix stripping").

    Example:
        >>> [stem(word) for word in ("queries", "classes", "running", "agreed", "class", "bring")]
        ['queri', 'class', 'run', 'agree', 'class', 'bring']
    """
    if len(word) <= 3 or word in _WHOLE or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("sses"):
        word = word[:-2]
    elif word.endswith("ies"):
        word = word[:-3] + "i"
    elif word.endswith(("xes", "ches", "shes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    if word.endswith("eed"):
        return word[:-1] if len(word) > 4 else word
    for ending in ("ed", "ing"):
        base = word.removesuffix(ending)
        if base != word and _VOWEL.search(base) and len(base) >= 2:
            if len(base) == 2 or _SHORT.fullmatch(base) or base.endswith(("at", "bl", "iz")):
                return base + "e"
            doubled = base[-1] == base[-2] and base[-1] not in "lsz"
            return base[:-1] if doubled else base
    if len(word) > 3 and word.endswith("y") and _VOWEL.search(word[:-1]):
        word = word[:-1] + "i"
    return word.removesuffix("e") if len(word) > 4 else word
