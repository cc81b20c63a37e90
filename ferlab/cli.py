"""What every script's command line has in common: parser, exit codes, shared flags."""

import argparse
import functools
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from ferlab.files import UserError

DATA_DIR = Path("processed_data")
RESULTS_DIR = Path("results")  # of the full dataset; committed, weights included
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16")
MOST_PARTS = 1000  # of a split
LARGEST_SEED = 2**32 - 1  # that NumPy takes
LARGEST = 1e37  # of a number; Adam works with ten times a learning rate, which float32 still holds


def command(main: Callable[[list[str] | None], int | None]) -> Callable[..., int]:
    """Wraps a script's `main(argv)` so that it returns an exit code and never a traceback
    for what a user can cause: 0 done, 1 failed with one line on stderr, 130 on Ctrl-C.

    argparse itself ends with 2 on bad usage.
    """

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            return main(argv) or 0
        except UserError as error:
            rank = int(os.environ.get("RANK", 0))  # under torchrun
            who = f"rank {rank}: " if rank else ""
            print(f"error: {who}{error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt as interrupt:
            print(f"\nstopped{': ' + str(interrupt) if interrupt.args else ''}", file=sys.stderr)
            return 130
        except BrokenPipeError:  # `python script.py | head`: nobody reads any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1

    return wrapped


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the description's lines, and shows the defaults that tell something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.default is None or action.default is False or "(default" in action.help
        return action.help if told else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser whose flag `--preset`, if there is one, chooses the defaults of the others.

    Attributes:
        weights_are_evaluated: `--weights` without `--evaluate` is bad usage: a script that trained
            instead would write over the results of an earlier run.
    """

    def __init__(self, **options):
        super().__init__(**options)
        self.presets: dict[str, dict] = {}
        self.weights_are_evaluated = False

    def set_presets(self, presets: dict[str, dict]) -> None:
        """Adds `--preset`.

        Args:
            presets: the defaults by the preset's name; the first is the default.
        """
        self.presets, usual = presets, next(iter(presets))
        self.add_argument(
            "--preset",
            choices=presets,
            default=usual,
            help="the recipe: what the other flags are where they are not given",
        )
        self.set_defaults(**presets[usual])

    def parse_known_args(self, args=None, namespace=None):
        """Parses as argparse does, with the defaults of the preset that `args` name."""
        if self.presets:
            chosen, _ = super().parse_known_args(args)
            self.set_defaults(**self.presets[chosen.preset])
        parsed, unknown = super().parse_known_args(args, namespace)
        if self.weights_are_evaluated and parsed.weights and not parsed.evaluate:
            self.error("--weights are those of --evaluate; add it, or train without --weights")
        return parsed, unknown


def parser(description: str | None) -> Parser:
    """Returns a parser whose help is the script's docstring, with each flag's default shown."""
    return Parser(description=description, formatter_class=_HelpFormatter)


def positive(kind: type) -> Callable[[str], float]:
    """Returns an argparse type: a number of `kind` above zero."""

    def convert(text: str) -> float:
        value = kind(text)
        if not 0 < value <= LARGEST:
            raise ValueError
        return value

    convert.__name__ = f"positive {kind.__name__}"
    return convert


def not_negative(kind: type) -> Callable[[str], float]:
    """Returns an argparse type: a number of `kind`, zero or above."""

    def convert(text: str) -> float:
        value = kind(text)
        if not 0 <= value <= LARGEST:
            raise ValueError
        return value

    convert.__name__ = f"not negative {kind.__name__}"
    return convert


def share(text: str) -> float:
    """An argparse type: a number from 0 up to, not including, 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError
    return value


def seed(text: str) -> int:
    """An argparse type: a whole number from 0 to `LARGEST_SEED`."""
    value = int(text)
    if not 0 <= value <= LARGEST_SEED:
        raise ValueError
    return value


def part(text: str) -> str:
    """An argparse type: a part of several, such as "2/5", the second of five."""
    number, parts = map(int, text.split("/"))
    if not 1 <= number <= parts <= MOST_PARTS or parts < 2:
        raise ValueError
    return f"{number}/{parts}"


def evaluation_parser(description: str | None) -> Parser:
    """Returns a parser with the flags that the baseline too understands."""
    result = parser(description)
    result.add_argument("--data-dir", type=Path, default=DATA_DIR, help="the split files' folder")
    result.add_argument(
        "--results-dir", type=Path, default=RESULTS_DIR, help="where results are written"
    )
    result.add_argument(
        "--evaluate",
        action="store_true",
        help="train nothing: report saved weights on the splits that are in --data-dir",
    )
    result.add_argument(
        "--weights",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="the weights of --evaluate, several for an ensemble that averages their probabilities "
        f"(default: <model>_model.pth in --results-dir, else in {RESULTS_DIR})",
    )
    result.weights_are_evaluated = True
    result.add_argument("--seed", type=seed, default=0, help="of everything random")
    result.add_argument("--device", choices=DEVICES, default="auto", help="where to compute")
    result.add_argument("--quiet", action="store_true", help="no progress bars, no epoch lines")
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
    group = result.add_argument_group("training")
    group.add_argument(
        "--epochs", type=positive(int), default=epochs, help="passes over the train split"
    )
    group.add_argument("--batch-size", type=positive(int), default=batch_size, help="images a step")
    group.add_argument("--lr", type=positive(float), default=lr, help="peak learning rate")
    group.add_argument(
        "--weight-decay", type=not_negative(float), default=weight_decay, help="of the matrices"
    )
    group.add_argument(
        "--class-weights",
        choices=("none", "balanced"),
        default="none",
        help="balanced: rare classes weigh more in the loss",
    )
    group.add_argument(
        "--oversample", action="store_true", help="draw every class equally often in training"
    )
    group.add_argument(
        "--augment",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="vary the training faces",
    )
    group.add_argument(
        "--augment-strength",
        type=not_negative(float),
        default=1.0,
        metavar="FACTOR",
        help="times the script's ranges of --augment; 0 leaves only the mirroring",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=precision,
        help="auto: bfloat16 where the machine gains from it",
    )
    group.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint of a stopped run"
    )
    return result


def stage_command(script: str, data_dir: Path = DATA_DIR, results_dir: Path = RESULTS_DIR) -> str:
    """Returns the command of a stage, with its folders where they are not the default ones."""
    words = ["python", script]
    words += [] if data_dir == DATA_DIR else ["--data-dir", str(data_dir)]
    words += [] if results_dir == RESULTS_DIR else ["--results-dir", str(results_dir)]
    return shlex.join(words)
