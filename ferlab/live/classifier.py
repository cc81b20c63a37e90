"""A trained network, prepared for low latency on the CPU."""

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ferlab.constants import IMAGE_SIZE
from ferlab.data.preprocessing import preprocess
from ferlab.evaluation.grad_cam import grad_cam, halves
from ferlab.training.device import choose_precision
from ferlab.training.weights import load_model


class Classifier:
    """Computes the class probabilities of faces on the CPU.

    Batch norm is folded into the convolutions, whose weights are packed once for this CPU. Tensors
    are channels last. The precision is bfloat16 where the CPU has instructions for it.
    benchmarks/live.py measures the latency.

    Args:
        path: the weights file, of any model.
        threads: number of torch's threads; None does not change it.
        precision: "float32", "bfloat16" or "auto" (see `device.choose_precision`).

    Attributes:
        class_names: the classes, in the order of the probabilities.
        temperature: the number that logits are divided by (see `calibration`).
        targets: what the weights were trained on, "votes" or "labels"; None if unknown.
        explains: whether `explain` can be called: the network is the CNN.

    Raises:
        UserError: the same as `weights.load_model`.
    """

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        precision: str = "auto",
    ):
        if threads:
            torch.set_num_threads(threads)
        model, content = load_model(path)
        self.class_names = tuple(content["class_names"])
        self.temperature = content["temperature"]
        self.targets = content["run"].get("targets")
        self.precision = choose_precision(precision, torch.device("cpu"))
        model = with_folded_norms(model)
        self.explains = content["model"] == "advanced"
        if self.explains:
            self._first, rest = halves(model)
            self._rest = copy.deepcopy(rest)  # packed convolutions have no gradients
        self.model = model.to(self.precision, memory_format=torch.channels_last)
        example = torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE, dtype=self.precision)
        pack_convolutions(self.model, example)

    def __call__(self, faces: Sequence[np.ndarray]) -> np.ndarray:
        """Classifies all faces of a frame in one batch.

        Args:
            faces: uint8 `(H, W, 3)` each, BGR.

        Returns:
            float32 `(N, classes)`: calibrated probabilities.
        """
        if not faces:
            return np.empty((0, len(self.class_names)), np.float32)
        logits = self.computed(self.model, torch.stack([as_input(face) for face in faces]))
        return (logits / self.temperature).softmax(1).numpy()

    def explain(self, faces: Sequence[np.ndarray], classes: Sequence[int]) -> np.ndarray:
        """Computes Grad-CAM (see `grad_cam`) of a class of each face.

        Args:
            faces: uint8 `(H, W, 3)` each, BGR; one at least.
            classes: a class for each.

        Returns:
            float32 `(N, 48, 48)`, from 0 to 1: where the face raises the logit of the class.
        """
        maps = self.computed(self._first, torch.stack([as_input(face) for face in faces]))
        return grad_cam(maps.clone(), self._rest, torch.tensor(classes)).numpy()

    @torch.inference_mode()
    def computed(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Returns the network's output, float32, for preprocessed faces `(N, 1, 48, 48)`."""
        return network(images.to(self.precision, memory_format=torch.channels_last)).float()


class PackedConvolution(nn.Module):
    """A convolution with weights in oneDNN's own layout.

    Weights in torch's layout are reordered in each pass, which with one face per pass takes a third
    of the network's time. Uses the operators that `torch.compile` uses for convolutions;
    `torch.compile` itself needs a C++ compiler.

    Args:
        convolution: the layer to replace, with a bias.
        input_shape: (N, C, H, W) of the most frequent input.

    Raises:
        AttributeError, RuntimeError: this torch or this CPU has no such operators.
    """

    def __init__(self, convolution: nn.Conv2d, input_shape: torch.Size):
        super().__init__()
        self.bias = convolution.bias
        self.geometry = [
            list(numbers)
            for numbers in (convolution.padding, convolution.stride, convolution.dilation)
        ] + [convolution.groups]
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(
            convolution.weight, *self.geometry, list(input_shape)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps `(N, inputs, H, W)` as the replaced layer does."""
        return torch.ops.mkldnn._convolution_pointwise(
            maps, self.weight, self.bias, *self.geometry, "none", [], ""
        )


@torch.no_grad()
def with_folded_norms(model: nn.Module) -> nn.Module:
    """Returns a copy in which each batch norm is folded into the convolution defined before it.

    `torch.fx.experimental.optimization.fuse` finds the pairs by tracing, but importing it takes
    half a second. In a network that does not run in the order of definition, the output would
    change: `model` itself is returned then.

    Args:
        model: a network in eval mode.
    """
    folded = copy.deepcopy(model)
    for module in list(folded.modules()):
        for (name, layer), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(layer, norm))
                setattr(module, norm_name, nn.Identity())
    noise = torch.rand(2, 1, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    agrees = torch.allclose(folded(noise), model(noise), rtol=1e-3, atol=1e-3)
    return folded if agrees else model


@torch.inference_mode()
def pack_convolutions(model: nn.Module, example: torch.Tensor) -> None:
    """Replaces the convolutions of `model` by packed ones, where torch has them.

    Args:
        model: a network without batch norm; is changed.
        example: a batch of the most frequent shape.
    """
    shapes: dict[str, torch.Size] = {}

    def record_shape(name: str) -> Callable[[nn.Module, tuple], None]:
        def hook(layer: nn.Module, inputs: tuple) -> None:
            shapes[name] = inputs[0].shape

        return hook

    hooks = [
        layer.register_forward_pre_hook(record_shape(name))
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
        agrees = torch.allclose(model(example), expected, rtol=0.02, atol=0.02)
    except (AttributeError, RuntimeError, TypeError):
        agrees = False
    if not agrees:
        for name, layer in plain.items():
            model.set_submodule(name, layer)


def as_input(face: np.ndarray) -> torch.Tensor:
    """Returns the network's input for a face, by the `preprocess` of the prepared splits.

    Args:
        face: uint8 `(H, W, 3)`, BGR.

    Returns:
        float32 `(1, 48, 48)` in [-1, 1].
    """
    return preprocess(torch.from_numpy(face[:, :, ::-1].copy()).permute(2, 0, 1))
