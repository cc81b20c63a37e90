"""What a search may try for a parameter, and how a value becomes a flag. Needs no Optuna."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Times:
    """A range from `low` to `high` times the script's default, searched on a log scale."""

    low: float
    high: float

    def suggest(self, trial: optuna.Trial, name: str, default: float) -> float:
        """Returns the trial's value of the parameter called `name`."""
        return trial.suggest_float(name, default * self.low, default * self.high, log=True)


@dataclass(frozen=True)
class Between:
    """A range from `low` to `high`, whatever the default."""

    low: float
    high: float

    def suggest(self, trial: optuna.Trial, name: str, default: float) -> float:
        """Returns the trial's value of the parameter called `name`."""
        return trial.suggest_float(name, min(self.low, default), max(self.high, default))


class Choice:
    """Some texts, each the values of a flag, and the default if it is not among them."""

    def __init__(self, *texts: str):
        self.texts = texts

    def __str__(self) -> str:
        return f"Choice{self.texts}"

    def suggest(self, trial: optuna.Trial, name: str, default: str) -> str:
        """Returns the trial's value of the parameter called `name`."""
        extra = () if default in self.texts else (default,)
        return trial.suggest_categorical(name, self.texts + extra)


Space = dict[str, Times | Between | Choice]


def text_of(value: float | str) -> str:
    """Returns a parameter's value as it stands in a command: numbers with four digits."""
    return value if isinstance(value, str) else f"{value:.4g}"


def flags_of(params: dict[str, float | str]) -> list[str]:
    """Returns parameters as the words of a command."""
    return [
        word for name, value in params.items() for word in (f"--{name}", *text_of(value).split())
    ]
