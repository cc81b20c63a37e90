"""Kills a script at random moments, runs it again, and compares with runs that were left alone.

    python tests/faults/killing.py softmax --kills 20

Each kill begins with the results of an earlier run, or with none, in turns. Half of the kills are
at a random time; half are before a random operation on files, so that the short moments between two
of them are met as well. After a kill, every file must be whole, of the earlier run or of the new
one, and sets of files must be of one run. The same command, run again, must give the bytes of the
run that was left alone, and leave nothing beside them. Prints the number of kills, and what was
found. The clock of the scripts advances by a fixed step, so that times are equal too.
"""

import contextlib
import importlib
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from ferlab import cli

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate")
HEAVY = (  # what a script imports while it runs, optimizers torch._dynamo
    "ferlab.evaluation.calibration",
    "ferlab.evaluation.metrics",
    "ferlab.evaluation.reports",
    "sklearn.metrics",
    "torch._dynamo",
)
MODELS = {  # script: the model's name, flags that make it small
    "baseline": ("baseline", []),
    "softmax": ("softmax", ["--epochs", "3"]),
    "basic_nn": ("basic_nn", ["--epochs", "2", "--widths", "16", "8"]),
    "advanced_network": (
        "advanced",
        ["--epochs", "2", "--widths", "8", "16", "--blocks", "1"],
    ),
    "transfer_learning": (
        "transfer",
        ["--epochs", "2", "--from-scratch", "--frozen-epochs", "0", "--size", "32"],
    ),
}


@dataclass
class Writer:
    """A script whose files are looked at.

    Attributes:
        script: name of its module.
        argv: its arguments.
        earlier: arguments of the run before.
        sets: names of a file and of those that are of the same run where that file is there.
        reads: `(script, argv)` of the runs whose results it reads in the same folder.
        resume: after a kill, `--resume` is added where the file of this name is there.
        grows: name of a file that is written line by line: after a kill it may be a part.
    """

    script: str
    argv: list
    earlier: list
    sets: dict[str, list[str]] = field(default_factory=dict)
    reads: list[tuple[str, list]] = field(default_factory=list)
    resume: str | None = None
    grows: str | None = None


def writers(inputs: Path, out: Path) -> dict[str, Writer]:
    """Returns all writers by name; makes what they read in `inputs`, they write to `out`."""
    from conftest import make_split, write_pictures
    from ferlab.data import shards, workers
    from ferlab.data.splits import save_splits

    sizes = {"train": (12, 0), "val": (5, 1), "test": (5, 2)}
    data = inputs / "data"
    save_splits({name: make_split(*size, votes=True) for name, size in sizes.items()}, data)
    for number in (0, 1):
        folder = inputs / f"images{number}"
        for split in ("train", "validation"):
            write_pictures(folder / split, 6, seed=2 * number + (split == "train"))
        shutil.make_archive(str(folder), "zip", folder)
    shards.SHARD, workers.available_cores = 16, lambda: 2  # six shards, read by two processes
    splits = ["train_data.pt", "val_data.pt", "test_data.pt"]
    to = ["--data-dir", data, "--results-dir", out]
    model = [*to, "--quiet", "--targets", "votes"]
    live = ["--source", "sample", "--no-window", "--output", out / "a.mp4", "--log", out / "a.csv"]
    result = {
        "preparation": Writer(
            "dataset_preparation",
            ["--source", inputs / "images1", "--data-dir", out, "--quiet"],
            ["--source", inputs / "images0", "--data-dir", out, "--quiet"],
            {"dataset.json": splits, "train_data.pt": splits},
        ),
        "unpacking": Writer(
            "download_dataset",
            ["--archive", inputs / "images1.zip", "--data-dir", out, "--force"],
            ["--archive", inputs / "images0.zip", "--data-dir", out, "--force"],
        ),
        "compare": Writer(
            "compare_results",
            ["--results-dir", out],
            ["--results-dir", out],
            reads=[("baseline", model), ("softmax", [*model, "--epochs", "1"])],
        ),
        "export": Writer(
            "export_onnx",
            [*to, "--weights", out / "softmax_model.pth"],
            [*to, "--weights", out / "softmax_model.pth"],
            reads=[("softmax", [*model, "--epochs", "1"])],
        ),
        "explain": Writer(
            "explain_models",
            [*to, "--targets", "votes", "--quiet"],
            [*to, "--targets", "votes", "--quiet"],
            reads=[("softmax", [*model, "--epochs", "1"])],
        ),
        "live": Writer(
            "live_inference",
            [*live, "--max-frames", "12"],
            [*live, "--max-frames", "8"],
            grows="a.csv",
        ),
    }
    for script, (name, small) in MODELS.items():
        names = ("model.pth", "predictions.npz", "results.txt", "confusion_matrix.png")
        names += () if script == "baseline" else ("history.csv", "curves.png", "errors.png")
        result[script] = Writer(
            script,
            [*model, *small],
            [*model, *small, "--targets", "labels"],
            {f"{name}_metrics.json": [f"{name}_{part}" for part in names]},
        )
    argv = result["softmax"].argv
    result["resume"] = Writer("softmax", argv, argv, resume="softmax_checkpoint.pth")
    return result


def tick() -> float:
    """Returns a time that depends on the number of calls alone."""
    return next(TICKS) / 1024  # differences are exact


TICKS = itertools.count(1)


def run(writer: Writer, argv: list, kill_at: int | None = None, count: Path | None = None) -> int:
    """Runs a script in a child of this process; returns the child's status.

    Args:
        writer: the script.
        argv: its arguments.
        kill_at: the operation on files before which the child kills itself.
        count: file to which the child writes the number of its operations.
    """
    child = os.fork()
    if child:
        return child
    operations = itertools.count()
    done = 0

    def watch(event: str, args: tuple) -> None:
        nonlocal done
        if event == "open" and not (args[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if event == "open" or event in CHANGES:
            done = next(operations)
            if done == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    if os.environ.get("SHOW") is None:
        os.dup2(quiet, 2)
    time.perf_counter = tick
    sys.argv = [writer.script, "..."]
    code = 99
    try:
        sys.addaudithook(watch)
        code = importlib.import_module(writer.script).main([str(arg) for arg in argv])
        if count:
            count.write_text(str(done))
    finally:
        os._exit(code)


def finish(child: int) -> int:
    """Waits for a child; returns its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(folder: Path) -> dict[str, bytes]:
    """Returns all files below a folder; of a video and a checkpoint, what their bytes stand for."""
    result = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".mp4" and not path.name.startswith("."):
            video = cv2.VideoCapture(str(path))  # times of the run are drawn into its frames
            result[path.name] = repr([video.get(number) for number in (3, 4, 7)]).encode()
        elif path.name.endswith("_checkpoint.pth"):
            values = []
            flatten(torch.load(path), values)
            result[path.name] = repr(values).encode()
        elif path.is_file():
            with contextlib.suppress(FileNotFoundError):  # of a worker whose parent was killed
                result[path.relative_to(folder).as_posix()] = path.read_bytes()
    return result


def flatten(content: object, values: list) -> None:
    """Appends all numbers and texts of a checkpoint to `values`, in order."""
    if isinstance(content, dict | list | tuple):
        for part in content.items() if isinstance(content, dict) else content:
            flatten(part, values)
    else:
        values.append(content.numpy().tobytes() if isinstance(content, torch.Tensor) else content)


def is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def faults_after_kill(writer: Writer, found: dict, old: dict, new: dict) -> list[str]:
    """Returns what is wrong with the files that a killed run leaves, a line each."""
    result = []
    for name, content in found.items():
        if is_hidden(name) or name.endswith("_checkpoint.pth"):  # of another epoch
            continue
        part = name == writer.grows and new.get(name, b"").startswith(content)
        if not part and content not in (old.get(name), new.get(name)):
            result.append(f"{name} is of neither run")
    for marker, names in writer.sets.items():
        if marker not in found or old.get(marker) == new[marker]:
            continue
        whole = old if found[marker] == old.get(marker) else new
        result += [f"{n} is not of {marker}'s run" for n in names if found.get(n) != whole[n]]
    return result


def try_kills(writer: Writer, out: Path, kills: int, seed: int) -> list[str]:
    """Kills a script `kills` times; returns what was found, a line for each fault."""
    for module in [writer.script, *(script for script, _ in writer.reads), *HEAVY]:
        importlib.import_module(module)  # once, not in each child
    for script, argv in writer.reads:
        require_success(replace(writer, script=script), argv)
    base = contents(out)
    copy = out.with_name("copy")

    def start(name: str) -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(copy / name, out)

    copy.mkdir()
    out.rename(copy / "base")
    states, counts = {"base": base}, out.with_name("operations")
    for name, first, argv in (("old", "base", writer.earlier), ("new", "base", writer.argv)):
        start(first)
        require_success(writer, argv)
        shutil.copytree(out, copy / name)
        states[name] = contents(out)
    start("old")
    begin = time.monotonic()
    require_success(writer, writer.argv, counts)
    seconds, operations = time.monotonic() - begin, int(counts.read_text())
    states["after old"] = contents(out)
    chance, result = random.Random(seed), []
    for number in range(kills):
        before, after = (("old", "after old"), ("base", "new"))[number % 2]
        start(before)
        if number % 4 < 2:
            place = chance.randrange(operations)
            finish(run(writer, writer.argv, kill_at=place))
            moment = f"operation {place} of {operations}"
        else:
            place = chance.random() * seconds
            child = run(writer, writer.argv)
            time.sleep(place)
            os.kill(child, signal.SIGKILL)
            finish(child)
            moment = f"{place:.3f} s of {seconds:.3f}"
        faults = faults_after_kill(writer, contents(out), states[before], states["new"])
        resumes = writer.resume is not None and (out / writer.resume).is_file()
        if code := finish(run(writer, [*writer.argv, *(["--resume"] if resumes else [])])):
            faults.append(f"the run after it ends with {code}")
        wanted, found = states[after], contents(out)
        faults += [f"{n} differs" for n in wanted if n in found and found[n] != wanted[n]]
        faults += [f"{n} is missing" for n in wanted if n not in found]
        faults += [f"{n} is left" for n in found if n not in wanted]
        where = "over an earlier run" if before == "old" else "the first run"
        result += [f"{where}, killed at {moment}: {fault}" for fault in faults]
    return result


def require_success(writer: Writer, argv: list, count: Path | None = None) -> None:
    """Runs a script that must succeed."""
    if code := finish(run(writer, argv, count=count)):
        raise SystemExit(f"{writer.script} {argv} ended with {code}")


def main(argv: list[str] | None = None) -> int:
    """Runs the kills; returns 1 if a fault was found."""
    parser = cli.parser(__doc__)
    parser.add_argument("writer", help="a key of what the function `writers` returns")
    parser.add_argument("--kills", type=cli.positive(int), default=20, help="number of kills")
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of the moments")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        inputs, out = Path(folder) / "inputs", Path(folder) / "out"
        inputs.mkdir()
        out.mkdir()
        faults = try_kills(writers(inputs, out)[args.writer], out, args.kills, args.seed)
    print(f"{args.writer}: {args.kills} kills, {len(faults)} faults", *faults, sep="\n  ")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
