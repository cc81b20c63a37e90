"""A network turned into ONNX, in float32 or 8 bits, with the metadata that its users need."""

import importlib
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
from ferlab.files import UserError
from ferlab.live.onnx_model import FORMAT, INPUT, OUTPUT

if TYPE_CHECKING:
    from onnx import ModelProto

PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # optional: no other script needs them
CALIBRATION_FACES = 512  # more change the accuracy by less than chance does


def require_packages() -> None:
    """Checks that the optional packages are installed.

    Raises:
        UserError: one is not.
    """
    try:
        for name in PACKAGES:
            importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"export_onnx.py needs {', '.join(PACKAGES[:-1])} and {PACKAGES[-1]}; "
            f"install them with: pip install {' '.join(PACKAGES)}"
        ) from error


def to_onnx(model: nn.Module) -> "ModelProto":
    """Returns the network as ONNX, for any number of images."""
    images = torch.zeros(2, 1, IMAGE_SIZE, IMAGE_SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own insides
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
        part.ClearField("metadata_props")  # traces of torch, paths of this machine among them
    return proto


def to_int8(proto: "ModelProto", faces: torch.Tensor) -> "ModelProto":
    """Returns the model with weights and activations rounded to 8 bits (static quantisation).

    Activations are unsigned: onnxruntime is several times faster on x86 then. Weights have a scale
    a channel, and 7 bits: with 8, sums overflow on CPUs without VNNI (see "reduce_range" at
    onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

    Args:
        proto: the model in float32.
        faces: float32 `(N, 1, 48, 48)`; CALIBRATION_FACES of them, drawn at random, tell the range
            of every activation.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))

    class Faces(CalibrationDataReader):
        batches = iter(faces[order[:CALIBRATION_FACES]].split(64))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        plain, folded, result = (str(Path(folder) / f"{n}.onnx") for n in ("plain", "folded", "8"))
        onnx.save(proto, plain)
        quant_pre_process(plain, folded, skip_symbolic_shape=True)
        logging.disable(logging.WARNING)  # it warns of every weight that has no channels
        try:
            quantize_static(
                folded,
                result,
                Faces(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
            )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(result)


def describe(proto: "ModelProto", content: dict, precision: str) -> bytes:
    """Returns the bytes of a `.onnx` file: the model, and metadata taken from its weights file."""
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
    texts = {key: json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(proto, texts)
    return proto.SerializeToString()
