"""An Optuna study that several processes share and that a kill does no harm to."""

import json
import os
import platform
import re
import time
import warnings
from collections import Counter
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from ferlab.files import UserError, require_writable
from ferlab.search_space import Space

SILENCE = 1800  # seconds without an epoch after which a process elsewhere is taken for dead
DONE = ("complete", "stopped", "diverged")  # states of a trial that needs no more work

STORAGE_FAULTS = (OSError, SQLAlchemyError, optuna.exceptions.OptunaError)

optuna.logging.set_verbosity(optuna.logging.ERROR)


def first_rung(epochs: int) -> int:
    """Returns after how many epochs a trial is compared with the others for the first time."""
    return max(1, round(epochs / 5))


def open_study(storage: str, name: str, epochs: int, task: dict) -> optuna.Study:
    """Opens or makes a study.

    Args:
        storage: a journal file's path, or a database URL that Optuna knows.
        name: the study's name in the storage.
        epochs: of a trial that runs to its end. Of the trials that reach a fifth of them, and
            three fifths, the better third goes on (asynchronous successive halving,
            arXiv 1810.05934).
        task: everything that must be equal for two trials to be comparable, JSON types.

    Raises:
        UserError: the storage cannot be opened, or the study there is of another task.
    """
    pruner = optuna.pruners.SuccessiveHalvingPruner(first_rung(epochs), reduction_factor=3)
    if "://" not in storage:
        require_writable(Path(storage).parent)
    try:
        backend = storage
        if "://" not in storage:
            file = JournalFileBackend(storage, JournalFileOpenLock(storage))
            backend = optuna.storages.JournalStorage(file)
        study = optuna.create_study(
            storage=backend,
            study_name=name,
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )
    except (*STORAGE_FAULTS, ValueError, LookupError, TypeError, ImportError) as error:
        raise _cannot_open(storage, error) from error
    task = json.loads(json.dumps(task))  # as it comes back
    stored = study.user_attrs.get("task")
    if stored is None and not study.get_trials(deepcopy=False):
        study.set_user_attr("task", task)
    elif stored != task:
        stored = stored or {}
        key = next(key for key in (*task, *stored) if task.get(key) != stored.get(key))
        raise UserError(
            f"study {name} in {shown(storage)} was made with {key} {stored.get(key)}, not "
            f"{task.get(key)}; repeat its flags, or begin another with --study NAME"
        )
    return study


def shown(storage: str) -> str:
    """Returns a storage's path or URL as it may be printed, without a password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", storage)


def _cannot_open(storage: str, error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(
        f"cannot open {shown(storage)} ({reason}); --storage takes a journal file or a URL such as "
        "sqlite:///tuning.db"
    )


def next_trial(study: optuna.Study, space: Space, defaults: dict, seed: int) -> Trial:
    """Begins a trial: the first has the defaults, others what the search suggests.

    Random numbers follow from `seed` and the trial's number: a study that was stopped doesn't
    draw the same again, and processes that begin together draw differently.
    """
    trial = study.ask()
    trial.set_user_attr("worker", [platform.node(), os.getpid()])
    study.sampler = optuna.samplers.TPESampler(seed=(1_000_003 * seed + trial.number) % 2**32)
    if trial.number == 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.sampler = optuna.samplers.PartialFixedSampler(defaults, study.sampler)
    for name, part in space.items():
        part.suggest(trial, name, defaults[name])
    return trial


def finish(study: optuna.Study, trial: Trial, accuracy: float | None) -> None:
    """Ends a trial with its best val accuracy, or as stopped early if None."""
    state = TrialState.PRUNED if accuracy is None else TrialState.COMPLETE
    study.tell(trial, accuracy, state, skip_if_finished=True)


def best_accuracy(study: optuna.Study) -> float | None:
    """Returns the best val accuracy of the trials that ran to their end."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max((trial.value for trial in trials), default=None)


def give_back(study: optuna.Study, number: int, defaults: dict) -> None:
    """Ends a trial that was not run to its end, and puts its parameters first in the queue."""
    trial = study.get_trials(deepcopy=False)[number]
    try:
        study.tell(number, state=TrialState.FAIL)
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        return  # another process was first
    study.enqueue_trial(defaults if number == 0 else trial.params)


def release_dead(study: optuna.Study, defaults: dict) -> None:
    """Gives back the trials whose process was killed; call it between two trials."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        host, pid = trial.user_attrs.get("worker", (None, None))
        seen = trial.user_attrs.get("seen", trial.datetime_start.timestamp())
        gone = host == platform.node() and not _is_running(pid)
        if gone or time.time() - seen > SILENCE:
            give_back(study, trial.number, defaults)


def _is_running(pid: int) -> bool:
    """Whether another process of this machine runs; on Windows, which cannot be asked, yes."""
    if pid == os.getpid():
        return False  # a former process had our number
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def counts(study: optuna.Study) -> Counter:
    """Returns how many trials are in each state of `state_of`."""
    return Counter(state_of(trial) for trial in study.get_trials(deepcopy=False))


def done(study: optuna.Study) -> int:
    """Returns how many trials need no more work."""
    return sum(counts(study)[state] for state in DONE)


def state_of(trial: FrozenTrial) -> str:
    """Returns a trial's state in this project's words."""
    if "fault" in trial.user_attrs and trial.state == TrialState.PRUNED:
        return "diverged"
    return {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "stopped",
        TrialState.FAIL: "interrupted",
        TrialState.RUNNING: "running",
        TrialState.WAITING: "waiting",
    }[trial.state]


def importances(study: optuna.Study, epoch: int) -> dict[str, float]:
    """Returns each parameter's share in what varies val accuracy after `epoch` (fANOVA).

    All trials that came so far count, not only those that ran to their end: successive halving
    leaves few of these, and only good ones.
    """
    early = optuna.create_study(direction="maximize")
    for trial in study.get_trials(deepcopy=False):
        if state_of(trial) in DONE and epoch in trial.intermediate_values:
            early.add_trial(
                optuna.trial.create_trial(
                    params=trial.params,
                    distributions=trial.distributions,
                    value=trial.intermediate_values[epoch],
                )
            )
    if len({trial.value for trial in early.get_trials(deepcopy=False)}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(early, evaluator=evaluator)


def row_of(trial: FrozenTrial) -> dict:
    """Returns what is told of a begun trial.

    `val_accuracy` is the best epoch's of a complete trial, the last epoch's of another, None
    where no epoch was done.
    """
    seen, end = trial.intermediate_values, trial.datetime_complete
    return {
        "trial": trial.number,
        "state": state_of(trial),
        "val_accuracy": trial.value if trial.value is not None else seen.get(len(seen)),
        "best_epoch": trial.user_attrs.get("best_epoch"),
        "epochs": len(seen),
        "seconds": (end - trial.datetime_start).total_seconds() if end else None,
        "worker": ":".join(map(str, trial.user_attrs.get("worker", ()))),
        "machine": trial.user_attrs.get("machine", "unknown"),
        "params": trial.params,
    }
