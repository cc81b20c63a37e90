"""Tuning: searches a script's hyperparameters for the highest accuracy on val, with Optuna.

    python tune_hyperparameters.py basic_nn.py --trials 20 --epochs 10 --dropout 0

Each trial trains the script's model with other values of its flags; the first with its defaults.
After a fifth of the epochs, and after three fifths, only the best third of the trials continues.
Flags that are not listed below go to the script, as --dropout above, and are not searched.

After Ctrl-C or a kill, the same command continues the study; several processes may run it at once.
The result is a command to paste. The best val accuracy of many trials is optimistic; test is never
read.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from ferlab import cli, entry
from ferlab.commands import model_module
from ferlab.files import UserError, require_writable

SEARCH = {  # the searched flags of each script; of others, as of softmax.py
    "softmax.py": ("lr", "weight-decay"),
    "basic_nn.py": ("lr", "weight-decay", "dropout", "augment-strength", "widths"),
    "advanced_network.py": ("lr", "weight-decay", "dropout", "augment-strength"),
    "transfer_learning.py": ("lr", "weight-decay", "frozen-lr", "augment-strength"),
}
NOT_TASK = ("data_dir", "results_dir", "device", "quiet")  # flags that do not change a trial


@dataclass(frozen=True)
class Job:
    """What all trials of a study have in common."""

    module: ModuleType  # the script, imported
    parser: argparse.ArgumentParser  # of the script
    flags: list[str]  # that the script gets in every trial
    args: argparse.Namespace  # these flags, parsed
    defaults: dict[str, float | str]  # the script's own values of what is searched, by flag


def parser() -> argparse.ArgumentParser:
    """Returns the flags of the tuning itself."""
    result = cli.parser(__doc__)
    result.allow_abbrev = False  # an unknown flag goes to the script as it is
    add = result.add_argument
    add("script", metavar="SCRIPT", help=f"script to tune: {', '.join(SEARCH)}, or one of yours")
    add("--trials", type=cli.positive(int), default=20, help="number of trials in the study")
    add(
        "--timeout",
        type=cli.positive(float),
        metavar="MINUTES",
        help="time after which no trial starts",
    )
    add("--epochs", type=cli.positive(int), help="epochs of a trial (default: the script's)")
    add("--storage", help="SQLite file or database URL (default: tuning/ in --results-dir)")
    add("--study", help="name of the study in the storage (default: the model's name)")
    add("--data-dir", type=Path, default=cli.DATA_DIR, help="folder of the split files")
    add("--results-dir", type=Path, default=cli.RESULTS_DIR, help="folder; writes to its tuning/")
    add("--seed", type=cli.seed, default=0, help="seed of the search and of each trial")
    add("--device", choices=cli.DEVICES, default="auto", help="device to compute on")
    add("--quiet", action="store_true", help="print no progress bar, trials or results")
    return result


def make_job(args: argparse.Namespace, extra: list[str]) -> Job:
    """Returns the trials' common part; exits with 2 where the script does not accept `extra`."""
    flags = []
    for name in ("data_dir", "epochs", "seed", "device"):
        value = getattr(args, name)
        if value != parser().get_default(name):
            flags += [f"--{name.replace('_', '-')}", str(value)]
    module = model_module(args.script)
    if module is None or module.parser().get_default("lr") is None:
        parser().error(f"{args.script} is no script of a model that is trained with --lr")
    script_parser = module.parser()
    script_parser.prog, script_parser.allow_abbrev = args.script, False
    flags += extra
    own = script_parser.parse_args(flags)
    if own.evaluate or own.resume:
        script_parser.error("a trial takes no --evaluate and no --resume")
    given = {word.split("=")[0].removeprefix("--") for word in extra if word.startswith("--")}
    defaults = {}
    for name in SEARCH.get(args.script, SEARCH["softmax.py"]):
        value = getattr(own, name.replace("-", "_"))
        if name not in given and (own.augment or name != "augment-strength"):
            defaults[name] = " ".join(map(str, value)) if isinstance(value, list) else float(value)
    if not defaults:
        script_parser.error("these flags leave nothing to search")
    return Job(module, script_parser, flags, own, defaults)


def train(trial, job: Job, splits: dict, device, bar) -> float:
    """Trains what the script trains with a trial's flags; returns the best val accuracy.

    Raises:
        TrialPruned: the trial is not in the best third, or its loss is not finite.
    """
    from optuna import TrialPruned

    from ferlab import stage, tuning
    from ferlab.training.device import precision_name
    from ferlab.training.trainer import Trainer

    flags = tuning.suggest(trial, job.defaults, job.args.seed)
    args = job.parser.parse_args([*job.flags, *flags])
    setup = job.module.setup(args)
    recipe = stage.recipe_of(setup, args, precision_name(args.precision, device))
    classes = len(splits["train"].class_names)
    network = stage.new_network(setup, classes, args.seed, device)
    trainer = Trainer(network, splits["train"], recipe, setup.config)
    for epoch in range(1, recipe.epochs + 1):
        bar.set_description(f"trial {trial.number}, epoch {epoch} of {recipe.epochs}")
        try:
            row = trainer.epoch(splits["val"], quiet=True)
        except UserError as error:
            trial.set_user_attr("fault", str(error))
            raise TrialPruned from error
        trial.report(row["val_accuracy"], epoch)
        if epoch < recipe.epochs and trial.params != job.defaults and trial.should_prune():
            raise TrialPruned  # the defaults run to their end, to be compared with
    trial.set_user_attr("best_epoch", trainer.best["epoch"])
    return trainer.best["val_accuracy"]


def search(study, job: Job, splits: dict, args: argparse.Namespace) -> None:
    """Runs trials until the study has as many as asked for, or the time is up."""
    from optuna.study import MaxTrialsCallback
    from tqdm import tqdm

    from ferlab import tuning
    from ferlab.training.device import choose_device
    from ferlab.training.streaming import on_device

    device = choose_device(args.device)
    splits = dict(zip(splits, on_device(splits.values(), device), strict=True))
    bar = tqdm(total=args.trials, initial=tuning.done(study), unit="trial", disable=args.quiet)

    def objective(trial) -> float:
        try:
            return train(trial, job, splits, device, bar)
        except KeyboardInterrupt:
            tuning.retry(study, study.trials[trial.number])
            raise

    def show(study, trial) -> None:
        bar.update(tuning.done(study) - bar.n)
        if not args.quiet:
            bar.write(tuning.trial_line(trial))

    seconds = args.timeout and 60 * args.timeout
    enough = MaxTrialsCallback(args.trials, tuning.DONE)
    with bar:
        if bar.n < args.trials:
            study.optimize(objective, timeout=seconds, callbacks=[enough, show])


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    args, extra = parser().parse_known_args(argv)
    os.environ["MPLBACKEND"] = "Agg"  # a backend that is not installed would end the imports
    job = make_job(args, extra)
    if not all(map(find_spec, ("optuna", "pandas"))):
        raise UserError("tuning needs packages; install them with: pip install optuna pandas")
    from ferlab import stage, tuning
    from ferlab.training.recipe import expected_class

    setup = job.module.setup(job.args)
    folder = require_writable(args.results_dir / "tuning")
    storage = args.storage or (folder / f"{setup.name}.db").as_posix()
    name, place = args.study or setup.name, tuning.shown(storage)
    rung, wanted = max(1, round(job.args.epochs / 5)), ("train", "val")
    splits = stage.load_splits(args.data_dir, required=wanted, wanted=wanted)
    task = {"script": args.script, "searched": list(job.defaults), "network": setup.config}
    flags = {flag: value for flag, value in vars(job.args).items() if flag not in NOT_TASK}
    task |= setup.recipe | flags | {f"{name} split": splits[name].digest() for name in wanted}
    study = None
    try:
        study = tuning.open_study(storage, name, task, job.defaults, rung)
        search(study, job, splits, args)
    except KeyboardInterrupt as interrupt:
        done = tuning.done(study) if study else 0
        state = f"{done} of {args.trials} trials are in {place}"
        raise KeyboardInterrupt(f"{state}; the same command continues") from interrupt
    except tuning.STORAGE_FAULTS as error:
        while error.__context__:
            error = error.__context__
        fault = str(error).split("\n")[0]
        raise UserError(f"{place}: {fault}; once mended, the same command continues") from error
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in splits.items())
    facts = {"study": f"{name} in {place}", "data": f"{args.data_dir}: {sizes}; test was not read"}
    command = ["python", args.script, *job.flags, "--results-dir", f"{args.results_dir / 'tuned'}"]
    judged = int((expected_class(splits["val"], job.args.targets) >= 0).sum())
    text = tuning.report(study, facts, command, job.defaults, rung, judged)
    if not args.quiet:
        print(text)
    tuning.write_results(study, folder / f"{setup.name}_tuning", rung, text)
    print(f"wrote {folder}/{setup.name}_tuning.txt, .csv and plots")
    return 0


if __name__ == "__main__":
    sys.exit(main())
