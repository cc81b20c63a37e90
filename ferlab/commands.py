"""The project's commands as messages name them, with the flags that are not at their defaults."""

import importlib
import os
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

from ferlab.constants import DATA_DIR, RESULTS_DIR, ROOT


def default_results_dir(targets: str) -> Path:
    """Returns the default results folder of a model that is trained on `targets`."""
    return RESULTS_DIR / "votes" if targets == "votes" else RESULTS_DIR


def script_of(name: str) -> str:
    """Returns the script that trains the model called `name` in file names."""
    scripts = {"advanced": "advanced_network.py", "transfer": "transfer_learning.py"}
    return scripts.get(name, f"{name}.py")


def model_module(script: str) -> ModuleType | None:
    """Returns the module of a model script, imported; None if the project has no such script.

    A model script is found by its file name, so that a new one needs no entry anywhere.
    """
    name = script.removesuffix(".py")
    if not (name.isidentifier() and (ROOT / script).is_file()):
        return None
    module = importlib.import_module(name)
    return module if hasattr(module, "setup") else None


def located(text: str) -> str:
    """Returns a message whose commands work in the current folder.

    In another folder than the project's, a command names the script's folder as it was typed for
    this program: `python ../faces/softmax.py`.
    """
    folder = os.path.dirname(sys.argv[0])
    if Path.cwd() == ROOT or not folder or Path(folder).resolve() != ROOT:
        return text
    place = shlex.quote(os.path.join(folder, ""))
    return re.sub(r"\bpython (?=\w+\.py\b)", lambda _: f"python {place}", text)


def stage_command(
    script: str,
    *flags: str,
    data_dir: Path = DATA_DIR,
    results_dir: Path | None = None,
    targets: str = "labels",
) -> str:
    """Returns the command of a stage.

    Args:
        script: the script's file name.
        flags: further flags, which come first.
        data_dir: folder of the split files.
        results_dir: folder of the results; None: the default of `targets`.
        targets: what the stage trains on.
    """
    words = ["python", script, *flags]
    words += [] if data_dir == DATA_DIR else ["--data-dir", str(data_dir)]
    words += [] if targets == "labels" else ["--targets", targets]
    usual = results_dir in (None, default_results_dir(targets))
    words += [] if usual else ["--results-dir", str(results_dir)]
    return located(shlex.join(words))


def preparation_command(data_dir: Path) -> str:
    """Returns the command that makes the split files of `data_dir`."""
    return stage_command("dataset_preparation.py", data_dir=data_dir)


def next_command(name: str, data_dir: Path, results_dir: Path, targets: str) -> str:
    """Returns the command of the stage after the model called `name`."""
    order = {
        "baseline": ["softmax.py"],
        "softmax": ["basic_nn.py"],
        "basic_nn": ["advanced_network.py", "--preset", "quick"],  # the default takes an hour
    }
    if name in order:
        return stage_command(
            *order[name], data_dir=data_dir, results_dir=results_dir, targets=targets
        )
    if targets == "votes" and results_dir == default_results_dir(targets):
        results_dir = results_dir.parent  # the comparison shows both
    return stage_command("compare_results.py", results_dir=results_dir)


def install_command() -> str:
    """Returns the command that installs the packages of the project, in an environment."""
    place = "" if Path.cwd() == ROOT else shlex.quote(f"{ROOT}{os.sep}")
    activate = f"source {place}.venv/bin/activate"
    if os.name == "nt":
        activate = rf"{place}.venv\Scripts\activate"
    install = f"pip install -r {place}requirements.txt"
    if sys.prefix != sys.base_prefix:  # in an environment
        return install
    make = "" if (ROOT / ".venv").is_dir() else f"python -m venv {place}.venv && "
    return f"{make}{activate} && {install}"


def command_line() -> str:
    """Returns the command that repeats what this program does, as a person types it.

    `--resume` is left out: a resumed run has the results of an uninterrupted one, and a person who
    repeats it has no checkpoint.
    """
    words = [word for word in sys.argv[1:] if word != "--resume"]
    return shlex.join(["python", Path(sys.argv[0]).name, *words])
