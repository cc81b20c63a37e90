"""What every script's command line has in common: parser, exit codes, shared flags."""

import argparse
import functools
import os
import sys
from collections.abc import Callable

from ferlab.files import UserError


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
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt as interrupt:
            print(f"\nstopped{': ' + str(interrupt) if interrupt.args else ''}", file=sys.stderr)
            return 130
        except BrokenPipeError:  # `python script.py | head`: nobody reads any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1

    return wrapped


def parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser whose help is the script's docstring, with each flag's default shown."""

    class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        pass

    return argparse.ArgumentParser(description=description, formatter_class=Formatter)


def positive(kind: type) -> Callable[[str], float]:
    """Returns an argparse type: a number of `kind` above zero."""

    def convert(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    convert.__name__ = f"positive {kind.__name__}"
    return convert


def not_negative(kind: type) -> Callable[[str], float]:
    """Returns an argparse type: a number of `kind`, zero or above."""

    def convert(text: str) -> float:
        value = kind(text)
        if not 0 <= value < float("inf"):
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
