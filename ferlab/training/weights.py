"""Weights files: what a model script writes, and what reads them of any model."""

import math
import os
from pathlib import Path

import torch
from torch import nn

from ferlab.commands import model_module, script_of, stage_command
from ferlab.constants import IMAGE_SIZE, MEAN, ROOT, STD
from ferlab.files import UserError
from ferlab.tensor_files import load_tensors, save_tensors

KEYS = {
    "model", "config", "state_dict", "class_names", "normalisation", "temperature", "run",
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


def load_model(path: str | os.PathLike, command: str | None = None) -> tuple[nn.Module, dict]:
    """Builds the network of a weights file of any model, and fills it with the file's weights.

    Args:
        path: the `.pth` file.
        command: what trains such weights, for messages; None: the script of the file's name.

    Returns:
        The network in eval mode on the CPU, and the file's content.

    Raises:
        UserError: the file is missing, damaged, or of other preprocessing; no script has its model.
    """
    path = Path(path)
    script = script_of(path.name.removesuffix("_model.pth"))
    if not (ROOT / script).is_file():
        script = "advanced_network.py"
    remedy = f"train it with: {command or stage_command(script)}"
    content = load_tensors(path, remedy)
    if not content.keys() >= KEYS:
        raise UserError(f"{path} is not a weights file of this project; {remedy}")
    if fault := fault_of(content):
        raise UserError(f"{path}: {fault}; {remedy}")
    preprocessing = (content.get("image_size"), content["normalisation"])
    if preprocessing != (IMAGE_SIZE, {"mean": MEAN, "std": STD}):
        raise UserError(f"{path} was trained on other preprocessing {preprocessing}; {remedy}")
    name = content["model"]
    module = model_module(script_of(name))
    if module is None:
        raise UserError(f"{path} holds weights of {name}, and {script_of(name)} is no model script")
    build = module.setup(module.parser().parse_args(["--evaluate"])).build
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
    if not isinstance(content["model"], str):
        return "model must be a string"
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
