"""Runs the models that export_onnx.py writes, by onnxruntime and without torch."""

import hashlib
import importlib
import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ferlab.files import UserError, require_file

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FORMAT = 2  # of the metadata
KEYS = ("format", "model", "precision", "class_names", "image_size", "mean", "std", "temperature")
OPTIONAL = ("targets",)
INPUT, OUTPUT = "images", "logits"
REMEDY = "write it with: python export_onnx.py"


class OnnxClassifier:
    """Computes the class probabilities of faces on the CPU, as `classifier.Classifier` does.

    Args:
        path: the `.onnx` file.
        threads: number of threads of onnxruntime.

    Attributes:
        class_names: the classes, in the order of the probabilities.
        temperature: the number that logits are divided by (see `calibration`).
        targets: what the weights were trained on, "votes" or "labels"; None if unknown.
        explains: False, since the file has no gradients.

    Raises:
        UserError: onnxruntime is not installed; the file is missing, damaged or not of this
            project.
    """

    explains = False

    def __init__(self, path: Path, threads: int):
        require_file(path, REMEDY)
        require_packages(["onnxruntime"])
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        if not content.endswith(seal(content[: -len(seal(b""))])):
            raise UserError(f"{path} is damaged or not a model of this project; {REMEDY}")
        try:
            self.session = open_session(content, threads)
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise UserError(f"{path} cannot be opened by onnxruntime; {REMEDY}") from error
        metadata = read_metadata(self.session, path)
        self.class_names = tuple(metadata["class_names"])
        self.temperature, self.size = metadata["temperature"], metadata["image_size"]
        self.mean, self.std = metadata["mean"], metadata["std"]
        self.targets = metadata.get("targets")
        try:
            outputs = run(self.session, np.zeros((1, 1, self.size, self.size), np.float32)).shape
        except Exception as error:
            raise UserError(f"{path} cannot be run; {REMEDY}") from error
        if outputs != (1, len(self.class_names)):
            raise UserError(f"{path} does not have one output for each class; {REMEDY}")

    def __call__(self, faces: Sequence[np.ndarray]) -> np.ndarray:
        """Classifies all faces of a frame in one batch.

        Args:
            faces: uint8 `(H, W, 3)` each, BGR.

        Returns:
            float32 `(N, classes)`: calibrated probabilities.
        """
        if not faces:
            return np.empty((0, len(self.class_names)), np.float32)
        images = np.stack([as_input(face, self.size, self.mean, self.std) for face in faces])
        logits = run(self.session, images) / np.float32(self.temperature)
        exps = np.exp(logits - logits.max(1, keepdims=True))
        return exps / exps.sum(1, keepdims=True)


def seal(model: bytes) -> bytes:
    """Returns the bytes that follow a model in its file: its digest, as "digest" in the metadata.

    onnxruntime itself runs damaged models. Protobuf takes bytes that follow a message as further
    fields of it; these are of field 14 of ModelProto (onnx.proto), with a key and a value.
    """
    digest = hashlib.blake2b(model, digest_size=16).hexdigest().encode()
    return b"r*\n\x06digest\x12 " + digest


def require_packages(names: Sequence[str]) -> None:
    """Checks that optional packages can be imported.

    Raises:
        UserError: one is not installed, or fails to import.
    """
    install = f"pip install {' '.join(names)}"
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # a package of a wrong version can raise anything
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                raise UserError(f"{name} is not installed; install it with: {install}") from error
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"{name} {_version(name)} cannot be imported ({reason}); "
                f"install a version that fits with: {install} --upgrade"
            ) from error


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(unknown version)"


def open_session(content: bytes, threads: int) -> "InferenceSession":
    """Opens a model for the CPU.

    Raises:
        Exception: the model is damaged; onnxruntime's exceptions have no common base class.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised as exceptions, not logged
    # Threads that spin while they wait would take the core of the detector.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(session: "InferenceSession", images: np.ndarray) -> np.ndarray:
    """Maps images, float32 `(N, 1, 48, 48)` in [-1, 1], to logits, float32 `(N, classes)`."""
    return session.run([OUTPUT], {INPUT: images})[0]


def as_input(face: np.ndarray, size: int, mean: float, std: float) -> np.ndarray:
    """Returns the network's input for a face: `preprocessing.preprocess` without torch.

    Differs from it by at most two grey levels: both resize as Pillow does, torch with coarser
    weights.

    Args:
        face: uint8 `(H, W, 3)`, BGR.
        size: height and width of the result, pixels.
        mean: is subtracted from gray / 255.
        std: divides the difference.

    Returns:
        float32 `(1, size, size)`.
    """
    gray = (face @ np.float32([0.114, 0.587, 0.2989])).astype(np.uint8)  # BT.601, as preprocess
    small = Image.fromarray(gray).resize((size, size), Image.Resampling.BILINEAR)
    return (np.asarray(small, np.float32)[None] / 255 - np.float32(mean)) / np.float32(std)


def read_metadata(session: "InferenceSession", path: Path) -> dict:
    """Returns the metadata that export_onnx.py wrote: a value for each of KEYS, and of
    those of OPTIONAL that are there.

    Raises:
        UserError: the model of `path` has no such metadata.
    """
    texts = session.get_modelmeta().custom_metadata_map
    try:
        metadata = {key: json.loads(texts[key]) for key in KEYS}
        metadata |= {key: json.loads(texts[key]) for key in OPTIONAL if key in texts}
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is not a model of this project; {REMEDY}") from error
    if metadata["format"] != FORMAT:
        raise UserError(f"{path} has format {metadata['format']}, not {FORMAT}; {REMEDY}")
    return metadata
