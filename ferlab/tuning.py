"""A study of a script's hyperparameters with Optuna: search space, storage, results files."""

import json
import re
import shlex
import time
import warnings
from collections import Counter
from pathlib import Path

import matplotlib
import optuna
import pandas  # Optuna's trials_dataframe needs it
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState
from scipy.stats import binomtest
from sqlalchemy.exc import SQLAlchemyError

from ferlab.cli import wrapped
from ferlab.commands import located
from ferlab.files import UserError, atomic_path, write_text

WIDTHS = ("256 128", "512 256", "1024", "1024 512", "1024 512 256", "2048 1024")
LINEAR = {"dropout": (0.0, 0.6), "augment-strength": (0.0, 2.0)}  # lowest and highest value
ATTEMPTS = 20  # to open a storage
HEARTBEAT, GRACE = 10, 60  # seconds: between two heartbeats; without one, until a trial is lost
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
# Optuna 5.0 raises UnboundLocalError where it cannot write that a trial has failed.
STORAGE_FAULTS = (SQLAlchemyError, optuna.exceptions.OptunaError, UnboundLocalError)

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeat and plots
retry = RetryHeartbeatStaleTrialCallback(max_retry=3)  # queues a lost trial's hyperparameters again


def suggest(trial: Trial, defaults: dict[str, float | str], seed: int) -> list[str]:
    """Returns a trial's hyperparameters as flags of the script; each range includes the default.

    Random numbers follow from `seed` and the trial's number: a study that continues does not draw
    the same values again, and processes that start together draw different ones.
    """
    trial.study.sampler = optuna.samplers.TPESampler(seed=(1_000_003 * seed + trial.number) % 2**32)
    for name, default in defaults.items():
        if name == "widths":
            trial.suggest_categorical(name, tuple(dict.fromkeys((*WIDTHS, default))))
        elif name in LINEAR:
            low, high = LINEAR[name]
            trial.suggest_float(name, min(low, default), max(high, default))
        else:
            trial.suggest_float(name, default / 10, default * 10, log=True)
    return flags_of(trial.params)


def flags_of(params: dict[str, float | str]) -> list[str]:
    """Returns hyperparameters as words of a command, numbers with four digits."""
    texts = {n: v if isinstance(v, str) else f"{v:.4g}" for n, v in params.items()}
    return [word for name, text in texts.items() for word in (f"--{name}", *text.split())]


def open_study(storage: str, name: str, task: dict, defaults: dict, rung: int) -> optuna.Study:
    """Opens a study, or creates it; the first trial of a new one has the script's own values.

    Args:
        storage: path of an SQLite file, or URL of a database that SQLAlchemy can open.
        name: the study's name in the storage.
        task: what must be equal for two trials to be comparable.
        defaults: the script's own values of the searched flags.
        rung: after that many epochs, and after three times as many, the best third of the trials
            continues (asynchronous successive halving, arXiv 1810.05934).

    Raises:
        UserError: the storage cannot be opened, or its study is of another task.
    """
    task = json.loads(json.dumps(task, default=str))  # as the storage returns it
    pruner = optuna.pruners.SuccessiveHalvingPruner(rung, reduction_factor=3)
    try:
        study = optuna.create_study(
            storage=_connect(storage if "://" in storage else f"sqlite:///{storage}"),
            study_name=name,
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )
        if "task" not in study.user_attrs:  # is written last: a new study, or one left half made
            if not study.trials:
                study.enqueue_trial(defaults)
            study.set_user_attr("task", task)
        stored = study.user_attrs.get("task", {})
    except (*STORAGE_FAULTS, ValueError, ImportError, RuntimeError) as error:
        fault = f"cannot open {shown(storage)} ({str(error).splitlines()[0]})"
        raise UserError(f"{fault}; --storage takes an SQLite file or a database URL") from error
    if stored != task:
        key = next(key for key in (*task, *stored) if task.get(key) != stored.get(key))
        raise UserError(
            f"study {name} in {shown(storage)} has {key} {stored.get(key)}, not {task.get(key)}; "
            "repeat the flags of that study, or start another one with --study NAME"
        )
    return study


def _connect(url: str) -> RDBStorage:
    patience = {"timeout": 60} if url.startswith("sqlite") else {}  # seconds, for a lock
    options = {"engine_kwargs": {"connect_args": patience}, "heartbeat_stale_trial_callback": retry}
    options |= {"heartbeat_interval": HEARTBEAT, "grace_period": GRACE}
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return RDBStorage(url, **options)
        except SQLAlchemyError as error:  # another process may be creating the same tables
            if attempt == ATTEMPTS or not re.search("already exists|UNIQUE", str(error)):
                raise
            time.sleep(0.1)


def shown(storage: str) -> str:
    """Returns a storage's path or URL without user and password."""
    return re.sub("://.*@", "://***@", storage)


def done(study: optuna.Study) -> int:
    """Returns the number of trials that need no more work."""
    return len(study.get_trials(deepcopy=False, states=DONE))


def trial_line(trial: FrozenTrial) -> str:
    """Returns a finished trial as a line for people."""
    accuracy = "no val accuracy" if trial.value is None else f"val accuracy {trial.value:.4f}"
    state = f"{trial.state.name.lower()} after epoch {trial.last_step or 0}"
    told = trial.user_attrs.get("fault") or " ".join(flags_of(trial.params))
    return f"trial {trial.number}: {accuracy}, {state}: {told}"


def at_epoch(study: optuna.Study, epoch: int) -> optuna.Study:
    """Returns a study of the val accuracies after `epoch`, trials that were stopped later too."""
    early = optuna.create_study(direction="maximize")
    for trial in study.get_trials(states=DONE):
        if epoch in trial.intermediate_values:
            trial.state, trial.value = TrialState.COMPLETE, trial.intermediate_values[epoch]
            early.add_trial(trial)
    return early


def report(
    study: optuna.Study, facts: dict, command: list[str], defaults: dict, rung: int, images: int
) -> str:
    """Returns the result of a study for people.

    Args:
        study: the study.
        facts: lines of the text, by label.
        command: words of the command that trains the script, without the searched flags.
        defaults: the script's own values of the searched flags.
        rung: the epoch after which trials were first compared.
        images: number of images of val that the accuracy is computed from.
    """
    states = Counter(trial.state.name.lower() for trial in study.trials)
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    title = f"Tuning of {command[1]}"
    lines = [title, "=" * len(title), ""]
    for label, fact in {**facts, "trials": told}.items():
        lines += wrapped(f"{label:8}{fact}", indent=8)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    complete.sort(key=lambda trial: trial.value, reverse=True)
    header = f"{'val accuracy [95 % interval]':>38}{'trial':>8}{'best epoch':>12}"
    lines += ["", header if complete else "No trial is complete yet."]
    own = [("defaults", trial) for trial in complete if trial.params == defaults]
    for label, trial in [("best", trial) for trial in complete][:1] + own[:1]:
        ends = binomtest(round(trial.value * images), images).proportion_ci(0.95, "wilson")
        interval = f"{trial.value:.4f} [{ends.low:.4f}, {ends.high:.4f}]"
        epoch = trial.user_attrs["best_epoch"]
        lines.append(f"{label:8}{interval:>30}{trial.number:>8}{epoch:>12}")
    if complete:
        lines += ["", "Train with the best values (evaluates on test once, at the end):"]
        lines += [located(shlex.join([*command, *flags_of(complete[0].params)])), ""]
        lines += wrapped(
            "The best of many trials on val is optimistic: part of its lead is chance in the "
            f"{images:,} images of val that count. Report the accuracy on test."
        )
    early = at_epoch(study, rung)
    if len({trial.value for trial in early.trials}) > 1:
        lines += ["", f"Importance for val accuracy after epoch {rung} (PED-ANOVA)"]
        importances = optuna.importance.get_param_importances(early)
        lines += [f"{name:18}{100 * part:4.0f} %" for name, part in importances.items()]
    return "\n".join(lines) + "\n"


def write_results(study: optuna.Study, path: Path, rung: int, text: str) -> None:
    """Writes `<path>.txt` with `text`, `<path>.csv`, `<path>_history.png`, `<path>_slice.png`."""
    write_text(Path(f"{path}.txt"), text)
    frame = study.trials_dataframe(("number", "state", "value", "duration", "params", "user_attrs"))
    frame["duration"] = pandas.to_timedelta(frame["duration"]).dt.total_seconds()
    frame = frame.round({"value": 6, "duration": 2})
    write_text(Path(f"{path}.csv"), frame.to_csv(index=False, lineterminator="\n"))
    matplotlib.use("Agg")  # before pyplot and whatever the environment says
    from matplotlib import pyplot
    from optuna.visualization.matplotlib import plot_optimization_history, plot_slice

    with matplotlib.rc_context(), warnings.catch_warnings(action="ignore"):  # style, few trials
        for name, draw, shown_study, label in (
            ("history", plot_optimization_history, study, "val accuracy"),
            ("slice", plot_slice, at_epoch(study, rung), f"val accuracy, epoch {rung}"),
        ):
            draw(shown_study, target_name=label)
            _set_readable_ticks(pyplot.gcf().axes)
            with atomic_path(f"{path}_{name}.png") as temporary:
                pyplot.savefig(temporary, format="png", dpi=130, bbox_inches="tight")
            pyplot.close()


def _set_readable_ticks(panels: list) -> None:
    """Gives the axes of Optuna's plots few ticks, and trials whole numbers."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    for axes in panels:
        low, high = axes.get_xlim()
        if axes.get_xscale() == "log":
            marks = LogLocator(subs=(1, 3) if high < 1000 * low else (1,))
            axes.xaxis.set_major_locator(marks if high > 10 * low else MaxNLocator(3))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        elif axes.get_xlabel() == "Trial":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.get_ylabel() == "Trial":  # the colours' scale
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
