"""A pipeline that refuses items until it is told otherwise, and its retry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sage.kernel.api import LocalEnvironment
from sage.kernel.api.replay import DeadLetterRetry, RetryOutcome
from sage.kernel.runtime import DeadLetter, DeadLetterStore, LetterState

__all__ = ["Gate", "retry"]


class Gate:
    """Refuses items until it is opened; gathers what comes out."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.refused: Callable[[Any], bool] = lambda item: True
        self.out: list[Any] = []

    def check(self, item: Any) -> Any:
        if self.refused(item):
            raise ValueError(f"{item!r} is refused")
        return item

    def env(self, name: str = "gate", **config: Any) -> LocalEnvironment:
        return LocalEnvironment(name, {"home": self.home, **config})

    def letters(self, *states: LetterState) -> list[DeadLetter]:
        with DeadLetterStore(self.home) as store:
            return list(store.read(states=states or LetterState))

    def items(self, *states: LetterState) -> list[str]:
        return [letter.item for letter in self.letters(*states)]


def retry(env: LocalEnvironment, **options: Any) -> RetryOutcome:
    with DeadLetterRetry(env, **options) as attempt:
        return attempt.commit(attempt.submit().wait())
