"""Tuning: searches a script's hyperparameters for the best accuracy on val, with Optuna.

    python tune_hyperparameters.py basic_nn.py --trials 20 --epochs 10
    python tune_hyperparameters.py advanced_network.py --trials 40 --epochs 20 --dropout 0

A trial trains exactly what the script trains with some flags; the first has the script's own.
After a fifth of the epochs, and after three fifths, only the better third of the trials goes on
(successive halving). What is searched: learning rate, weight decay, and where the script has them
dropout, layer widths and the strength of the augmentation. Further flags go to the script, as
--dropout above, and are not searched.

A study lives in a file: after Ctrl-C or a kill the same command goes on. The same command started
several times works on one study, also on machines that share the file or a database (--storage);
on one CPU give each process its share of the cores (OMP_NUM_THREADS=1).

The result is a command to paste. Its accuracy is the best of many on val, so it is optimistic; test
is never read here.
"""

import argparse
import importlib
import shlex
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import torch
from tqdm import tqdm

from ferlab import cli, stage
from ferlab.data.splits import Split
from ferlab.files import UserError
from ferlab.search_space import Between, Choice, Space, Times, flags_of
from ferlab.training.checkpoint import script_of
from ferlab.training.device import choose_device, describe_machine, precision_name
from ferlab.training.trainer import Trainer

try:
    from optuna import TrialPruned
    from optuna.exceptions import UpdateFinishedTrialError

    from ferlab import tuning, tuning_report
except ModuleNotFoundError as error:
    if error.name != "optuna":
        raise
    tuning = None

COMMON: Space = {"lr": Times(0.1, 10), "weight-decay": Times(0.1, 10)}
REGULARISATION: Space = {"dropout": Between(0, 0.6), "augment-strength": Between(0, 2)}
MLP_WIDTHS = Choice("256 128", "512 256", "1024", "1024 512", "1024 512 256", "2048 1024")
CNN_WIDTHS = Choice("32 64 128", "48 96 192", "64 128 256", "96 192 384")
SEARCH: dict[str, Space] = {  # by script: names of its flags
    "softmax.py": COMMON,
    "basic_nn.py": {**COMMON, **REGULARISATION, "widths": MLP_WIDTHS},
    "advanced_network.py": {**COMMON, **REGULARISATION, "widths": CNN_WIDTHS},
    "transfer_learning.py": {
        **COMMON,
        "frozen-lr": Times(0.1, 10),
        "augment-strength": Between(0, 2),
    },
}


@dataclass(frozen=True)
class Job:
    """What all trials of a study share.

    Attributes:
        script: the tuned script's file name.
        module: the script, imported.
        parser: the script's flags.
        flags: given to the script in every trial.
        args: what the script's parser makes of `flags`.
        space: what is searched.
        defaults: the script's own values of what is searched.
    """

    script: str
    module: ModuleType
    parser: argparse.ArgumentParser
    flags: list[str]
    args: argparse.Namespace
    space: Space
    defaults: dict[str, float | str]


def parser() -> argparse.ArgumentParser:
    """Returns the flags of the tuning itself."""
    result = cli.parser(__doc__)
    result.allow_abbrev = False  # an unknown flag goes to the script as it is
    result.add_argument(
        "script",
        type=lambda text: text if text.endswith(".py") else script_of(text),
        choices=tuple(SEARCH),
        help="the script to tune, or its model's name",
    )
    add = result.add_argument
    add("--trials", type=cli.positive(int), default=20, help="in the study, all processes together")
    add("--timeout", type=cli.positive(float), metavar="MINUTES", help="begin no trial after that")
    add("--epochs", type=cli.positive(int), help="of a trial (default: the script's)")
    add("--storage", help="the study's file or database URL (default: a file in tuning/)")
    add("--study", help="the study's name in the storage (default: the model's)")
    add("--data-dir", type=Path, default=cli.DATA_DIR, help="the split files' folder")
    add("--results-dir", type=Path, default=cli.RESULTS_DIR, help="results go to its tuning/")
    add("--seed", type=cli.seed, default=0, help="of the search and of every trial")
    add("--device", choices=cli.DEVICES, default="auto", help="where to compute")
    add("--quiet", action="store_true", help="no progress bar, no line a trial")
    return result


def make_job(args: argparse.Namespace, extra: list[str]) -> Job:
    """Returns the trials' common part; ends with 2 where the script doesn't take `extra`."""
    flags = []
    for name in ("data_dir", "epochs", "seed", "device"):
        value = getattr(args, name)
        if value != parser().get_default(name):
            flags += [f"--{name.replace('_', '-')}", str(value)]
    module = importlib.import_module(Path(args.script).stem)
    script_parser = module.parser()
    script_parser.prog, script_parser.allow_abbrev = args.script, False
    flags += extra
    own = script_parser.parse_args(flags)
    if own.evaluate or own.resume:
        script_parser.error("a trial takes no --evaluate and no --resume")
    fixed = {word.split("=")[0].removeprefix("--") for word in extra if word.startswith("--")}
    fixed |= set() if own.augment else {"augment-strength"}
    space = {name: part for name, part in SEARCH[args.script].items() if name not in fixed}
    if not space:
        script_parser.error("these flags leave nothing to search")
    defaults = {}
    for name in space:
        value = getattr(own, name.replace("-", "_"))
        defaults[name] = " ".join(map(str, value)) if isinstance(value, list) else float(value)
    return Job(args.script, module, script_parser, flags, own, space, defaults)


def task_of(job: Job, splits: dict[str, Split]) -> dict:
    """Returns what must be equal for two trials to be of one study, the defaults included."""
    setup = job.module.setup(job.args)
    return {
        "script": job.script,
        **asdict(stage.recipe_of(setup, job.args, job.args.precision)),
        "network": setup.config,
        "search": {name: str(part) for name, part in job.space.items()},
        **{f"{name} split": split.digest() for name, split in splits.items()},
    }


def run_trial(trial, job: Job, splits: dict[str, Split], device: torch.device, bar: tqdm) -> float:
    """Trains what the script trains with the trial's flags; returns the best val accuracy.

    Raises:
        TrialPruned: it is not among the better third, or its loss is no longer finite.
    """
    args = job.parser.parse_args([*job.flags, *flags_of(trial.params)])
    setup = job.module.setup(args)
    precision = precision_name(args.precision, device)
    recipe = stage.recipe_of(setup, args, precision)
    classes = len(splits["train"].class_names)
    trainer = Trainer(stage.new_network(setup, classes, args.seed, device), splits["train"], recipe)
    machine, seen = describe_machine(device), time.time()
    told = f"{machine['device']} ({machine['device_name']}, {machine['threads']} threads)"
    trial.set_user_attr("machine", told)
    for epoch in range(1, recipe.epochs + 1):
        bar.set_description(f"trial {trial.number}, epoch {epoch} of {recipe.epochs}")
        try:
            row = trainer.epoch(splits["val"], quiet=True)
        except (UserError, torch.OutOfMemoryError) as error:
            trial.set_user_attr("fault", str(error))
            raise TrialPruned from error
        trial.report(row["val_accuracy"], epoch)
        if time.time() - seen > 60:
            seen = time.time()
            trial.set_user_attr("seen", seen)  # for processes elsewhere: this one lives
        last = epoch == recipe.epochs
        if not last and trial.should_prune() and trial.params != job.defaults:
            raise TrialPruned  # the defaults run to their end, to be compared with
    trial.set_user_attr("best_epoch", trainer.best["epoch"])
    return trainer.best["val_accuracy"]


def search(study, job: Job, splits: dict[str, Split], args: argparse.Namespace) -> None:
    """Runs trials until the study has as many as asked for, or the time is up."""
    start = time.monotonic()
    device = choose_device(args.device)
    splits = {name: split.to(device) for name, split in splits.items()}
    done = tuning.done(study)
    with tqdm(total=args.trials, initial=done, unit="trial", disable=args.quiet) as bar:
        while True:
            tuning.release_dead(study, job.defaults)
            bar.n = tuning.done(study)
            best = tuning.best_accuracy(study)
            bar.set_postfix_str("" if best is None else f"best {best:.4f}")
            enough = bar.n + tuning.counts(study)["running"] >= args.trials
            if enough or (args.timeout and time.monotonic() - start > 60 * args.timeout):
                return
            trial = tuning.next_trial(study, job.space, job.defaults, args.seed)
            try:
                tuning.finish(study, trial, run_trial(trial, job, splits, device, bar))
            except TrialPruned:
                tuning.finish(study, trial, None)
            except UpdateFinishedTrialError:
                continue  # it was silent so long that another process has taken it over
            except BaseException:
                tuning.give_back(study, trial.number, job.defaults)
                raise
            if not args.quiet:
                row = tuning.row_of(study.trials[trial.number])
                bar.write(tuning_report.trial_line(row))


def report_of(study, job: Job, place: str, splits: dict[str, Split], args: argparse.Namespace):
    """Returns all that the results files tell."""
    rung = tuning.first_rung(job.args.epochs)
    rows = [tuning.row_of(trial) for trial in study.trials if trial.datetime_start]
    best = tuning_report.best_first(rows)[:1]
    command = None
    if best and best[0]["state"] == "complete":
        words = ["python", job.script, *job.flags, *flags_of(best[0]["params"])]
        command = shlex.join([*words, "--results-dir", (args.results_dir / "tuned").as_posix()])
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in splits.items())
    return tuning_report.Report(
        script=job.script,
        study=f"{study.study_name} in {place}",
        data=f"{args.data_dir.as_posix()}: {sizes}",
        val_images=len(splits["val"]),
        epochs=job.args.epochs,
        rows=rows,
        defaults=job.defaults,
        log_scaled=frozenset(n for n, part in job.space.items() if isinstance(part, Times)),
        importances=tuning.importances(study, rung),
        rung=rung,
        command=command,
        own_epochs=job.parser.get_default("epochs"),
    )


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    args, extra = parser().parse_known_args(argv)
    job = make_job(args, extra)
    if tuning is None:
        raise UserError("tune_hyperparameters.py needs optuna; install it with: pip install optuna")
    name = job.module.setup(job.args).name
    folder = args.results_dir / "tuning"
    storage = args.storage or (folder / f"{name}.journal").as_posix()
    choose_device(args.device)
    tuning.require_writable(folder)
    wanted = ("train", "val")
    splits = stage.load_splits(args.data_dir, required=wanted, wanted=wanted)
    study = tuning.open_study(storage, args.study or name, job.args.epochs, task_of(job, splits))
    place = tuning.shown(storage)
    try:
        search(study, job, splits, args)
    except KeyboardInterrupt as interrupt:
        done = f"{tuning.done(study)} of {args.trials} trials are in {place}"
        raise KeyboardInterrupt(f"{done}; the same command goes on") from interrupt
    except tuning.STORAGE_FAULTS as error:
        raise UserError(f"{place}: {error}; once mended, the same command goes on") from error
    report = None
    while report != (report := report_of(study, job, place, splits, args)):
        # again where another process has ended a trial meanwhile: its report may lie under ours
        text = tuning_report.write(folder, name, report)
    if not args.quiet:
        print(text)
    print(
        f"wrote {folder}/{name}_tuning.*" + (f"; next: {report.command}" if report.command else "")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
