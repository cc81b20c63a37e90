"""What all command lines have in common: parser and shared flags. Needs no torch."""

import argparse
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

from ferlab.commands import default_results_dir
from ferlab.constants import DATA_DIR as DATA_DIR
from ferlab.constants import RESULTS_DIR as RESULTS_DIR

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16")
TARGETS = ("labels", "votes")
LARGEST_SEED = 2**32 - 1  # that NumPy takes
LARGEST = 1e37  # of a number; Adam works with ten times a learning rate, which float32 still holds


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the description's lines, and shows the defaults that inform."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False or "(default" in action.help
        return action.help if silent else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser whose `--preset`, if there is one, sets the defaults of the other flags.

    Attributes:
        weights_are_evaluated: `--weights` without `--evaluate` is bad usage: a script that trained
            instead would overwrite the results of an earlier run.
    """

    def __init__(self, **options):
        super().__init__(**options)
        self.presets: dict[str, dict] = {}
        self.weights_are_evaluated = False

    def set_presets(self, presets: dict[str, dict], default: str) -> None:
        """Adds `--preset`.

        Args:
            presets: the defaults of the other flags by the preset's name.
            default: name of the preset that is used where none is given.
        """
        self.presets = presets
        self.add_argument(
            "--preset", choices=presets, default=default, help="defaults of the other flags"
        )
        self.set_defaults(**presets[default])

    def parse_known_args(self, args=None, namespace=None):
        """Parses as argparse does, with the defaults of the preset that `args` choose."""
        if self.presets:
            first = argparse.ArgumentParser(add_help=False, exit_on_error=False)
            first.add_argument("--preset", nargs="?")  # the parse below refuses a missing name
            chosen = first.parse_known_args(args)[0].preset
            self.set_defaults(**self.presets.get(chosen, {}))
        parsed, unknown = super().parse_known_args(args, namespace)
        if self.weights_are_evaluated and parsed.weights and not parsed.evaluate:
            self.error("--weights go with --evaluate; add it, or train without --weights")
        if getattr(parsed, "results_dir", "") is None:
            parsed.results_dir = default_results_dir(parsed.targets)
        return parsed, unknown


def parser(description: str | None) -> Parser:
    """Returns a parser whose help is the script's docstring, with each flag's default shown."""
    return Parser(description=description, formatter_class=_HelpFormatter)


def _number(kind: type, name: str, holds: Callable[[float], bool]) -> Callable[[str], float]:
    """Returns an argparse type: a number of `kind` for which `holds`; messages call it `name`."""

    def convert(text: str) -> float:
        value = kind(text)
        if not holds(value):
            raise ValueError
        return value

    convert.__name__ = name
    return convert


def positive(kind: type) -> Callable[[str], float]:
    """Returns an argparse type: a number of `kind` above zero."""
    return _number(kind, f"positive {kind.__name__}", lambda value: 0 < value <= LARGEST)


def not_negative(kind: type) -> Callable[[str], float]:
    """Returns an argparse type: a number of `kind`, zero or above."""
    return _number(kind, f"not negative {kind.__name__}", lambda value: 0 <= value <= LARGEST)


# Argparse types too, without the parentheses.
fraction = _number(float, "fraction", lambda value: 0 <= value < 1)
seed = _number(int, "seed", lambda value: 0 <= value <= LARGEST_SEED)


def part(text: str) -> tuple[int, int]:
    """An argparse type: `K/N`, with K from 1 to N."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N, with K from 1 to N, as 1/3")
    return int(match[1]), int(match[2])


def evaluation_parser(description: str | None) -> Parser:
    """Returns a parser with the flags that the baseline has too."""
    result = parser(description)
    add = result.add_argument
    add("--data-dir", type=Path, default=DATA_DIR, help="folder of the split files")
    add(
        "--results-dir",
        type=Path,
        help="folder where results are written (default: results, with --targets votes "
        "results/votes)",
    )
    add(
        "--targets",
        choices=TARGETS,
        default="labels",
        help="what is trained on: the dataset's labels, or the votes of FER+'s ten raters",
    )
    add(
        "--evaluate",
        action="store_true",
        help="report saved weights on the splits in --data-dir; nothing is trained",
    )
    add(
        "--weights",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="weights for --evaluate; several files make an ensemble, whose probabilities are "
        "averaged (default: <model>_model.pth in --results-dir, else in reference/)",
    )
    result.weights_are_evaluated = True
    add("--seed", type=seed, default=0, help="seed of everything random")
    add("--device", choices=DEVICES, default="auto", help="device to compute on")
    add("--quiet", action="store_true", help="print no progress bars, epoch lines or results")
    return result


def training_parser(
    description: str | None,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    precision: str = "auto",
) -> Parser:
    """Returns a parser with all shared flags; the arguments are the script's defaults."""
    result = evaluation_parser(description)
    add = result.add_argument_group("training").add_argument
    add("--epochs", type=positive(int), default=epochs, help="passes over the train split")
    add("--batch-size", type=positive(int), default=batch_size, help="images in a step")
    add("--lr", type=positive(float), default=lr, help="peak learning rate")
    add(
        "--weight-decay",
        type=not_negative(float),
        default=weight_decay,
        help="weight decay of matrices and filters",
    )
    add(
        "--class-weights",
        choices=("none", "balanced"),
        default="none",
        help="weights of the classes in the loss; balanced: rare classes weigh more",
    )
    add("--oversample", action="store_true", help="draw every class equally often in training")
    add(
        "--augment",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="augment the training images",
    )
    add(
        "--augment-strength",
        type=not_negative(float),
        default=1.0,
        metavar="FACTOR",
        help="factor of the ranges of the augmentation; with 0 only the flip remains",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        default=precision,
        help="number format; auto: bfloat16 where the device has instructions for it",
    )
    add("--resume", action="store_true", help="continue a stopped run from its checkpoint")
    return result


def wrapped(text: str, indent: int = 0) -> list[str]:
    """Returns `text` in lines of 100 characters; flags and paths stay whole, to be pasted."""
    return textwrap.wrap(
        text,
        100,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
