"""Weights for the next script, and checkpoints for `--resume`."""

import os
from collections.abc import Callable
from pathlib import Path

from torch import nn

from ferlab.constants import IMAGE_SIZE, MEAN, STD
from ferlab.data.splits import load_tensors, save_tensors
from ferlab.files import UserError

MODEL_KEYS = {
    "model", "config", "state_dict", "class_names", "normalisation", "temperature", "run",
}  # fmt: skip
CHECKPOINT_KEYS = {
    "recipe", "data", "model", "ema", "optimizers", "schedulers", "random", "history", "best",
}  # fmt: skip


def parameter_count(model: nn.Module) -> int:
    """Returns how many numbers training sets."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def save_model(
    path: str | os.PathLike,
    name: str,
    model: nn.Module,
    config: dict,
    class_names: tuple[str, ...],
    temperature: float,
    run: dict,
) -> None:
    """Writes weights with all that is needed to use them, in plain types.

    Args:
        path: the `.pth` file.
        name: the model's name in file names, such as "softmax".
        model: the network.
        config: keyword arguments that build it.
        class_names: what its outputs mean.
        temperature: by which to divide its logits (see `calibration.fit_temperature`).
        run: how it was trained, for reports.
    """
    weights = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    content = {
        "model": name,
        "config": config,
        "state_dict": {key: value.contiguous() for key, value in weights.items()},
        "class_names": list(class_names),
        "image_size": IMAGE_SIZE,
        "normalisation": {"mean": MEAN, "std": STD},
        "temperature": temperature,
        "run": run,
    }
    save_tensors(content, path)


def load_model(
    path: str | os.PathLike, name: str, build: Callable[..., nn.Module]
) -> tuple[nn.Module, dict]:
    """Builds a network and fills it with the weights of `path`.

    Returns:
        The network in eval mode on the CPU, and the file's content.

    Raises:
        UserError: the file is missing, damaged, or of another model or preprocessing.
    """
    path = Path(path)
    remedy = f"train it with: python {script_of(name)}"
    content = load_tensors(path, remedy)
    if not content.keys() >= MODEL_KEYS:
        raise UserError(f"{path} is not a weights file of this project; {remedy}")
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


def script_of(name: str) -> str:
    """Returns the script that trains the model called `name` in file names."""
    scripts = {"advanced": "advanced_network.py", "transfer": "transfer_learning.py"}
    return scripts.get(name, f"{name}.py")


def save_checkpoint(state: dict, path: Path) -> None:
    """Writes a loop state (see `trainer.Trainer.state`); an older one stays until it is whole."""
    save_tensors(state, path)


def load_checkpoint(path: Path) -> dict:
    """Reads a loop state.

    Raises:
        UserError: there is none, or the file is something else.
    """
    remedy = "start over without --resume"
    state = load_tensors(path, remedy)
    if not state.keys() >= CHECKPOINT_KEYS:
        raise UserError(f"{path} is not a checkpoint of this project; {remedy}")
    return state
