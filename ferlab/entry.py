"""How a script starts and ends: imports, exit codes, one line on stderr for each fault."""

import argparse
import functools
import io
import os
import re
import signal
import sys
from collections.abc import Callable
from types import TracebackType

from ferlab.commands import install_command, located
from ferlab.files import UserError, lacks_memory


def command(main: Callable[[list[str] | None], int | None]) -> Callable[..., int]:
    """Wraps a script's `main(argv)` so that it returns an exit code and never a traceback
    for what a user can cause: 0 done, 1 failed with one line on stderr, 130 on Ctrl-C.

    argparse itself ends with 2 on bad usage.
    """

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        if signal.getsignal(signal.SIGINT) == _stop_at_once:  # see `before_imports`
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _prepare_streams()
        try:
            return main(argv) or 0
        except KeyboardInterrupt as interrupt:
            hint = f": {located(str(interrupt))}" if interrupt.args else ""
            print(f"\nstopped{hint}", file=sys.stderr)
            return 130
        except BrokenPipeError:  # `python script.py | head`: the reader has ended
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            message = message_of(error)
            if message is None:
                raise
            rank = int(os.environ.get("RANK", 0))  # under torchrun
            who = f"rank {rank}: " if rank else ""
            print(f"error: {who}{shown(message)}", file=sys.stderr)
            return 1

    return wrapped


def message_of(error: Exception) -> str | None:
    """Returns the message about what a user or the machine has caused; None for other faults."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ImportError):
        return missing(error)
    if isinstance(error, MemoryError | RuntimeError):
        return exhausted(error)
    if isinstance(error, OSError) and error.filename is not None:  # permissions, too long a name
        return f"{error.filename} cannot be used: {error.strerror}; check name and permissions"
    return None


def shown(message: object) -> str:
    """Returns a message as one line: file names may hold line breaks and escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in located(str(message)))


def before_imports(parser: argparse.ArgumentParser, known: bool = False) -> None:
    """Ends a script at `--help`, at bad usage and at Ctrl-C before its heavy imports are done.

    Until `command` takes over, Ctrl-C and a missing package end the process without a traceback.

    Args:
        parser: the script's parser.
        known: flags that the parser does not have are left alone.
    """
    parser.parse_known_args() if known else parser.parse_args()
    sys.excepthook = _report_missing
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop_at_once)


def missing(error: ImportError) -> str | None:
    """Returns what is not installed and the command that installs it; None for other faults."""
    name = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and not name.startswith("ferlab"):
        place = f"is not installed in {sys.prefix}"
        return f"the Python package {name} {place}; run: {install_command()}"
    library = re.search(r"(\S+\.so\S*): cannot open shared object file", str(error))
    if library is None:
        return None
    return (
        f"{library[1]} is missing, a library of the system; "
        "on Debian and Ubuntu, those of OpenCV are in: sudo apt-get install libgl1 libglib2.0-0"
    )


def exhausted(error: MemoryError | RuntimeError) -> str | None:
    """Returns what the machine has too little of and what helps; None for other faults."""
    text = str(error)
    if "can't start new thread" in text:  # Python has no class of its own for it
        return f"{text}; end other programs, or raise `ulimit -u`"
    on_gpu = "out of memory" in text
    if on_gpu or lacks_memory(error):
        what = "the GPU has too little memory" if on_gpu else "too little memory"
        return f"{what}; end other programs; training needs less with a lower --batch-size"
    return None


def _report_missing(kind: type, error: BaseException, trace: TracebackType | None) -> None:
    """A `sys.excepthook`, after which Python ends with exit code 1."""
    line = missing(error) if isinstance(error, ImportError) else None
    if line is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {line}", file=sys.stderr)


def _prepare_streams() -> None:
    """Opens standard streams that are closed, and prints names that the terminal's encoding lacks.

    Without this, the next file that is opened takes the number of a stream that the caller has
    closed (`2>&-`), and what a C library prints is written into it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the lowest free number is taken: 0, 1, 2
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is


def _stop_at_once(number: int, frame: object) -> None:
    os.write(2, b"\nstopped\n")
    os._exit(130)
