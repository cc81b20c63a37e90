"""Conversion of a network to ONNX, in float32 or int8, with the metadata that its users need."""

import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ferlab.constants import IMAGE_SIZE, MEAN, STD
from ferlab.live.onnx_classifier import FORMAT, INPUT, OUTPUT, seal

if TYPE_CHECKING:
    from onnx import ModelProto

PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # optional requirements
CALIBRATION_IMAGES = 512  # more of them change the accuracy by less than its standard error


def to_onnx(model: nn.Module) -> "ModelProto":
    """Returns the network as ONNX, for batches of any size."""
    images = torch.zeros(2, 1, IMAGE_SIZE, IMAGE_SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own internals
        program = torch.onnx.export(
            model.eval(),
            (images,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input):
        part.ClearField("metadata_props")  # contain paths of this machine
    return proto


def to_int8(proto: "ModelProto", images: torch.Tensor) -> "ModelProto":
    """Returns the model with weights and activations in int8 (static quantisation).

    Activations are unsigned, with which onnxruntime is several times faster on x86. Weights have
    one scale per channel and 7 bits: with 8 bits, sums overflow on CPUs without VNNI (see
    "reduce_range" at onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

    Args:
        proto: the model in float32.
        images: float32 `(N, 1, 48, 48)`; a random sample of CALIBRATION_IMAGES of them gives the
            range of each activation.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))

    class Images(CalibrationDataReader):
        batches = iter(images[order[:CALIBRATION_IMAGES]].split(64))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        plain, folded, result = (str(Path(folder) / f"{n}.onnx") for n in ("plain", "folded", "8"))
        onnx.save(proto, plain)
        quant_pre_process(plain, folded, skip_symbolic_shape=True)
        logging.disable(logging.WARNING)  # it warns about each weight without channels
        try:
            quantize_static(
                folded,
                result,
                Images(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
            )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(result)


def describe(proto: "ModelProto", content: dict, precision: str) -> bytes:
    """Returns the content of a `.onnx` file: the model with metadata of its weights file, sealed.

    Args:
        proto: the model.
        content: the content of the weights file.
        precision: "float32" or "int8".
    """
    import onnx

    metadata = {
        "format": FORMAT,
        "model": content["model"],
        "precision": precision,
        "class_names": content["class_names"],
        "image_size": IMAGE_SIZE,
        "mean": MEAN,
        "std": STD,
        "temperature": content["temperature"],
    }
    if targets := content["run"].get("targets"):
        metadata["targets"] = targets
    texts = {key: json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(proto, texts)
    content = proto.SerializeToString()
    return content + seal(content)
