"""Prompts for questions over passages."""

from __future__ import annotations

import difflib
from string import Formatter
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator

from sage.kernel.operators import MapFunction
from sage.middleware.records import Passage, PromptedQuery, passages_of, question_of

__all__ = ["DEFAULT_TEMPLATE", "QAPromptor"]

DEFAULT_TEMPLATE = (
    "Answer the question from the numbered passages. Cite what you use, like [1]. If they do not answer"
    " it, say so.\n\n"
    "{context}\n\nQuestion: {query}\nAnswer:"
)
_PLACEHOLDERS = ("context", "query")


class _Config(BaseModel, extra="forbid"):
    template: str = DEFAULT_TEMPLATE
    max_context: int = Field(default=8000, ge=1)
    unit: Literal["characters", "words"] = "characters"

    @field_validator("template")
    @classmethod
    def _checked(cls, template: str) -> str:
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            raise ValueError(f"template is not valid: {error}; a brace that is meant as such is doubled") from None
        names = [(name, spec, conversion) for _, name, spec, conversion in parts if name is not None]
        for name, spec, conversion in names:
            if name not in _PLACEHOLDERS:
                close = difflib.get_close_matches(name, _PLACEHOLDERS, n=1)
                hint = f"did you mean {{{close[0]}}}?" if close else "known: {context}, {query}"
                raise ValueError(f"template has the unknown placeholder {{{name}}}; {hint}")
            if spec or conversion:
                raise ValueError(f"the placeholder {{{name}}} takes no format, write it as {{{name}}}")
        if "query" not in {name for name, _, _ in names}:
            raise ValueError("template must have the placeholder {query}")
        return template


class QAPromptor(MapFunction[Any, PromptedQuery]):
    """Writes the prompt for a question and its passages, numbered [1], [2], ... in order.

    Takes a `RetrievedContext`, a mapping with `query` and `passages`, or a string. Gives a `PromptedQuery`
    that carries question, prompt and those passages on that are in the prompt. Passages are taken whole and
    in order while they fit; only when the first one alone is too long, it is cut.

    Config:
        template: with the placeholders {context} and {query}; braces meant as such are doubled.
        max_context: budget of {context}, in `unit`.
        unit: "characters" or "words".

    Raises:
        ConfigError: when the pipeline is built: an unknown placeholder, or no {query}.
        InvalidArgumentError: the item has no question.

    Example:
        >>> promptor = QAPromptor({"template": "{context}\\nQ: {query}\\nA:"})
        >>> print(promptor.execute({"query": "Why?", "passages": ["Because."]}).prompt)
        [1] Because.
        Q: Why?
        A:
    """

    Config: ClassVar[type[BaseModel] | None] = _Config

    def execute(self, item: Any) -> PromptedQuery:
        """Return the question with its prompt."""
        query, extra = question_of("QAPromptor", item)
        if isinstance(item, dict):
            extra.pop("passages", None)
        context, kept = self._context(passages_of("QAPromptor", item))
        # One pass over the template: braces inside question and passages mean nothing.
        prompt = self.config.template.format(context=context, query=query)
        return PromptedQuery(query, prompt, kept, extra)

    def _context(self, passages: tuple[Passage, ...]) -> tuple[str, tuple[Passage, ...]]:
        left: int = self.config.max_context
        parts: list[str] = []
        for number, passage in enumerate(passages, start=1):
            part = f"[{number}] {passage.text}"
            size = self._size(part)
            if size > left:
                if number == 1:
                    parts.append(self._cut(part, left))
                break
            parts.append(part)
            left -= size + (2 if self.config.unit == "characters" else 0)
        return "\n\n".join(parts), passages[: len(parts)]

    def _size(self, text: str) -> int:
        return len(text) if self.config.unit == "characters" else len(text.split())

    def _cut(self, text: str, size: int) -> str:
        if self.config.unit == "characters":
            return text[:size]
        return " ".join(text.split()[:size])
