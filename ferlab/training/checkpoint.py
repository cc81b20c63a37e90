"""Checkpoints, for `--resume`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ferlab.files import UserError
from ferlab.tensor_files import load_tensors
from ferlab.training.device import random_state, restore_random_state

if TYPE_CHECKING:
    from ferlab.training.trainer import Trainer

CHECKPOINT_KEYS = {
    "recipe", "network", "data", "model", "ema", "optimizers", "schedulers", "random", "history",
    "best",
}  # fmt: skip


def load_checkpoint(path: Path) -> dict:
    """Reads the state of a run, as `training_state` returns it.

    Raises:
        UserError: there is none, or the file is something else.
    """
    remedy = "start over without --resume"
    state = load_tensors(path, remedy)
    if not state.keys() >= CHECKPOINT_KEYS:
        raise UserError(f"{path} is not a checkpoint of this project; {remedy}")
    return state


def require_same(saved: dict, asked: dict, path: Path) -> None:
    """Checks that a run continues with the settings that it began with.

    Args:
        saved: settings in the checkpoint.
        asked: settings of the run that resumes it.
        path: file of the checkpoint.

    Raises:
        UserError: one has another value.
    """
    differing = [k for k in sorted(saved.keys() | asked.keys()) if asked.get(k) != saved.get(k)]
    if differing:
        values = ", ".join(f"{k} {saved.get(k)}, not {asked.get(k)}" for k in differing)
        raise UserError(
            f"{path} was trained with {values}; repeat its flags with --resume, or start over "
            "without --resume"
        )


def training_state(trainer: "Trainer") -> dict:
    """Returns the whole state of a run, in types that `torch.load(weights_only=True)` reads."""
    return {
        "recipe": asdict(trainer.recipe),
        "network": trainer.config,
        "data": trainer.data,
        "model": trainer.model.state_dict(),
        "ema": trainer.ema.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [scheduler.state_dict() for scheduler in trainer.schedulers],
        "random": random_state(trainer.generator),
        "history": trainer.history,
        "best": trainer.best,
    }


def restore_training(trainer: "Trainer", state: dict, path: Path) -> bool:
    """Restores the state of a checkpoint in a trainer of the same recipe, data and network.

    Returns:
        Whether the run continues with the random numbers of an uninterrupted one: not where the
        checkpoint was made on a GPU and continues on a CPU, or the reverse.

    Raises:
        UserError: it is of another recipe, other data or another network.
    """
    require_same(state["recipe"], asdict(trainer.recipe), path)
    if state["data"] != trainer.data:
        raise UserError(f"{path} was trained on other data; start over without --resume")
    require_same(state["network"], trainer.config, path)
    try:
        trainer.model.load_state_dict(state["model"])
        trainer.ema.load_state_dict(state["ema"])
    except RuntimeError as error:
        raise UserError(f"{path} is of another network; start over without --resume") from error
    for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
        for group, own in zip(saved["param_groups"], optimizer.param_groups, strict=True):
            if "capturable" in own:  # in AdamW's groups, True on a GPU alone
                group["capturable"] = own["capturable"]
        optimizer.load_state_dict(saved)
    for scheduler, saved in zip(trainer.schedulers, state["schedulers"], strict=True):
        scheduler.load_state_dict(saved)
    same = restore_random_state(state["random"], trainer.generator)
    trainer.history, trainer.best = state["history"], state["best"]
    if not same:
        trainer.generator.manual_seed(trainer.recipe.seed + len(trainer.history))
    trainer.seed_process()
    return same
