"""The trained CNN, made ready to label the faces of a stream quickly."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from ferlab.data.preprocessing import preprocess
from ferlab.data.splits import IMAGE_SIZE
from ferlab.training.checkpoint import load_model
from ferlab.training.device import choose_precision


class Classifier:
    """Gives faces their probabilities, on the CPU.

    Batch norm is folded into the convolutions, their weights are laid out for this CPU once and
    for all, tensors lie channels last, and numbers are bfloat16 where the machine gains from it;
    benchmarks/live.py measures what that gives.

    Args:
        path: the weights file.
        name: the model's name in file names.
        build: makes the network from the file's config.
        threads: for torch to take; by default those it has.

    Attributes:
        class_names: what the probabilities are of.
        temperature: by which logits are divided (see `calibration`).

    Raises:
        UserError: as of `checkpoint.load_model`.
    """

    def __init__(
        self, path: Path, name: str, build: Callable[..., nn.Module], threads: int | None = None
    ):
        if threads:
            torch.set_num_threads(threads)
        model, content = load_model(path, name, build)
        self.class_names = tuple(content["class_names"])
        self.temperature = content["temperature"]
        self.precision = choose_precision("auto", torch.device("cpu"))
        self.model = fuse(model).to(self.precision, memory_format=torch.channels_last)
        example = torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE, dtype=self.precision)
        pack_convolutions(self.model, example)

    def __call__(self, faces: Sequence[np.ndarray]) -> np.ndarray:
        """Classifies all faces of a frame in one pass.

        Args:
            faces: uint8 `(H, W, 3)` each, BGR.

        Returns:
            float32 `(N, classes)`: calibrated probabilities.
        """
        if not faces:
            return np.empty((0, len(self.class_names)), np.float32)
        logits = self.logits(torch.stack([as_input(face) for face in faces]))
        return (logits / self.temperature).softmax(1).numpy()

    @torch.inference_mode()
    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Maps preprocessed faces, float32 `(N, 1, 48, 48)`, to float32 `(N, classes)`."""
        batch = images.to(self.precision, memory_format=torch.channels_last)
        return self.model(batch).float()


class PackedConvolution(nn.Module):
    """A convolution whose weights lie as oneDNN wants them; else it lays them out in every pass.

    With one face a pass that is a third of the network's time. Uses the operators that
    `torch.compile` puts in place of a convolution; that itself would need a C++ compiler.

    Args:
        convolution: the layer to replace, with a bias.
        input_shape: (N, C, H, W) of what it will most often see.

    Raises:
        AttributeError, RuntimeError: this torch or this CPU has no such operators.
    """

    def __init__(self, convolution: nn.Conv2d, input_shape: torch.Size):
        super().__init__()
        self.bias = convolution.bias
        self.where = [
            list(numbers)
            for numbers in (convolution.padding, convolution.stride, convolution.dilation)
        ] + [convolution.groups]
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(
            convolution.weight, *self.where, list(input_shape)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps `(N, inputs, H, W)` as the replaced layer does."""
        return torch.ops.mkldnn._convolution_pointwise(
            maps, self.weight, self.bias, *self.where, "none", [], ""
        )


@torch.inference_mode()
def pack_convolutions(model: nn.Module, example: torch.Tensor) -> None:
    """Replaces the convolutions of `model` by packed ones, where torch has them.

    Args:
        model: a network without batch norm; is changed.
        example: a batch to feed it.
    """
    shapes: dict[str, torch.Size] = {}

    def note(name: str) -> Callable[[nn.Module, tuple], None]:
        def hook(layer: nn.Module, inputs: tuple) -> None:
            shapes[name] = inputs[0].shape

        return hook

    hooks = [
        layer.register_forward_pre_hook(note(name))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.bias is not None
    ]
    expected = model(example)
    for hook in hooks:
        hook.remove()
    plain = {name: model.get_submodule(name) for name in shapes}
    try:
        for name, shape in shapes.items():
            model.set_submodule(name, PackedConvolution(plain[name], shape))
        fits = torch.allclose(model(example), expected, rtol=0.02, atol=0.02)
    except (AttributeError, RuntimeError, TypeError):
        fits = False
    if not fits:
        for name, layer in plain.items():
            model.set_submodule(name, layer)


def as_input(face: np.ndarray) -> torch.Tensor:
    """Returns what the network is fed of a face: `preprocessing.preprocess`, as in prepared splits.

    Args:
        face: uint8 `(H, W, 3)`, BGR.

    Returns:
        float32 `(1, 48, 48)` in [-1, 1].
    """
    return preprocess(torch.from_numpy(face[:, :, ::-1].copy()).permute(2, 0, 1))
