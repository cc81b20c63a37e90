"""Weights for the next script, and checkpoints for `--resume`."""

import math
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ferlab.commands import script_of, stage_command
from ferlab.constants import IMAGE_SIZE, MEAN, STD
from ferlab.files import UserError
from ferlab.tensor_files import load_tensors, save_tensors
from ferlab.training.device import random_state, restore_random_state

if TYPE_CHECKING:
    from ferlab.training.trainer import Trainer

MODEL_KEYS = {
    "model", "config", "state_dict", "class_names", "normalisation", "temperature", "run",
}  # fmt: skip
CHECKPOINT_KEYS = {
    "recipe", "network", "data", "model", "ema", "optimizers", "schedulers", "random", "history",
    "best",
}  # fmt: skip


def parameter_count(model: nn.Module) -> int:
    """Returns how many numbers training sets."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def round_weights(model: nn.Module) -> None:
    """Rounds filters and matrices to float16, in which `save_model` stores them.

    What is reported of a network is then true of its file. Norms and biases stay in float32.
    """
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.copy_(parameter.data.half())


def save_model(
    path: str | os.PathLike,
    name: str,
    model: nn.Module,
    config: dict,
    class_names: tuple[str, ...],
    run: dict,
) -> None:
    """Writes weights with all that is needed to use them, in plain types.

    Filters and matrices are stored in float16 (see `round_weights`).

    Args:
        path: the `.pth` file.
        name: the model's name in file names, such as "softmax".
        model: the network.
        config: keyword arguments that build it.
        class_names: what its outputs mean.
        run: how it was trained, for reports; its "temperature" divides the logits (see
            `calibration.fit_temperature`), and is 1 where there is none.
    """
    matrices = {key for key, value in model.named_parameters() if value.ndim > 1}
    content = {
        "model": name,
        "config": config,
        "state_dict": {
            key: (value.half() if key in matrices else value).detach().cpu().contiguous()
            for key, value in model.state_dict().items()
        },
        "class_names": list(class_names),
        "image_size": IMAGE_SIZE,
        "normalisation": {"mean": MEAN, "std": STD},
        "temperature": run.get("temperature", 1.0),
        "run": run,
    }
    save_tensors(content, path)


def load_model(
    path: str | os.PathLike,
    name: str,
    build: Callable[..., nn.Module],
    command: str | None = None,
) -> tuple[nn.Module, dict]:
    """Builds a network and fills it with the weights of `path`.

    Args:
        path: the `.pth` file.
        name: the model's name in file names.
        build: makes the network from the file's configuration.
        command: what trains such weights, for messages; None: the model's script without flags.

    Returns:
        The network in eval mode on the CPU, and the file's content.

    Raises:
        UserError: the file is missing, damaged, or of another model or preprocessing.
    """
    path = Path(path)
    remedy = f"train it with: {command or stage_command(script_of(name))}"
    content = load_tensors(path, remedy)
    if not content.keys() >= MODEL_KEYS:
        raise UserError(f"{path} is not a weights file of this project; {remedy}")
    if fault := fault_of(content):
        raise UserError(f"{path}: {fault}; {remedy}")
    if content["model"] != name:
        raise UserError(f"{path} holds weights of {content['model']}, not of {name}; {remedy}")
    preprocessing = (content.get("image_size"), content["normalisation"])
    if preprocessing != (IMAGE_SIZE, {"mean": MEAN, "std": STD}):
        raise UserError(f"{path} was trained on other preprocessing {preprocessing}; {remedy}")
    try:
        model = build(**content["config"])
        model.load_state_dict(content["state_dict"])
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not fit this version of the network; {remedy}") from error
    return model.eval(), content


def fault_of(content: dict) -> str | None:
    """Returns in what a weights file's content cannot be used; None if in nothing."""
    state, names, temperature = (
        content[key] for key in ("state_dict", "class_names", "temperature")
    )
    if not (isinstance(content["config"], dict) and isinstance(content["run"], dict)):
        return "config and run must be dicts"
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not texts or len(set(names)) < len(names) or len(names) != content["config"].get("classes"):
        return "class_names must be a list of different strings, one for each class"
    if not (isinstance(temperature, int | float) and 0 < temperature < math.inf):
        return f"temperature is {temperature}, not a positive number"
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        return "state_dict must be a dict of tensors"
    for key, tensor in state.items():
        if not tensor.isfinite().all():
            return f"{key} is not finite"
    return None


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
