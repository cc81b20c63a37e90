"""The models that export_onnx.py writes: what their metadata says, and running them without torch.

onnxruntime runs them, else OpenCV's dnn, which every installation of this project has. OpenCV
shows no metadata, so they are read here.

OpenCV runs no int8 models here: 4.14 computes all but the first of several images wrongly, and is
no faster with them.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.special import softmax

from ferlab.files import UserError

FORMAT = 1  # of the metadata
KEYS = ("format", "model", "precision", "class_names", "image_size", "mean", "std", "temperature")
INPUT, OUTPUT = "images", "logits"
REMEDY = "write it with: python export_onnx.py"

Network = Callable[[np.ndarray], np.ndarray]
"""Maps float32 `(N, 1, 48, 48)` in [-1, 1] to logits, float32 `(N, classes)`."""


class OnnxClassifier:
    """Gives faces their probabilities, on the CPU; takes the place of `classifier.Classifier`.

    Args:
        path: the `.onnx` file.
        threads: for onnxruntime to take.

    Attributes:
        class_names: what the probabilities are of.
        temperature: by which logits are divided (see `calibration`).
        runtime: what runs the network, "onnxruntime" or "OpenCV".

    Raises:
        UserError: the file is missing, damaged, not of this project, or in int8 where onnxruntime
            is not installed.
    """

    def __init__(self, path: Path, threads: int):
        content = read_file(path)
        metadata = read_metadata(content, path)
        self.class_names = tuple(metadata["class_names"])
        self.temperature, self.size = metadata["temperature"], metadata["image_size"]
        self.mean, self.std = metadata["mean"], metadata["std"]
        self.runtime = best_runtime()
        if self.runtime != "onnxruntime" and metadata["precision"] == "int8":
            raise UserError(
                f"{path} is in int8, which only onnxruntime runs rightly; "
                "install it with: pip install onnxruntime"
            )
        example = np.zeros((1, 1, self.size, self.size), np.float32)
        try:
            self.logits = RUNTIMES[self.runtime](content, threads)
            fits = self.logits(example).shape == (1, len(self.class_names))
        except Exception as error:  # onnxruntime's have no base of their own
            raise UserError(f"{path} cannot be run: it is damaged; {REMEDY}") from error
        if not fits:
            raise UserError(f"{path} gives not one number for each class; {REMEDY}")

    def __call__(self, faces: Sequence[np.ndarray]) -> np.ndarray:
        """Classifies all faces of a frame in one pass.

        Args:
            faces: uint8 `(H, W, 3)` each, BGR.

        Returns:
            float32 `(N, classes)`: calibrated probabilities.
        """
        if not faces:
            return np.empty((0, len(self.class_names)), np.float32)
        images = np.stack([as_input(face, self.size, self.mean, self.std) for face in faces])
        return softmax(self.logits(images) / np.float32(self.temperature), axis=1)


def best_runtime() -> str:
    """Returns "onnxruntime" where it is installed, else "OpenCV"."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return "OpenCV"
    return "onnxruntime"


def with_onnxruntime(content: bytes, threads: int) -> Network:
    """Returns the network run by onnxruntime.

    Raises:
        Exception: one of onnxruntime's: the file is damaged.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # faults are told by exceptions
    # Threads that spin while they wait for work would take the detector's core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def with_opencv(content: bytes, _threads: int) -> Network:
    """Returns the network run by OpenCV's dnn; its threads are set with `cv2.setNumThreads`.

    Raises:
        cv2.error: the file is damaged.
    """
    network = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))

    def logits(images: np.ndarray) -> np.ndarray:
        network.setInput(images, INPUT)
        return network.forward(OUTPUT).copy()  # the next pass writes over what is returned

    return logits


RUNTIMES = {"onnxruntime": with_onnxruntime, "OpenCV": with_opencv}


def as_input(face: np.ndarray, size: int, mean: float, std: float) -> np.ndarray:
    """Returns what the network is fed of a face: `preprocessing.preprocess`, without torch.

    Within two grey levels of it: both resize as Pillow does, torchvision with coarser weights.

    Args:
        face: uint8 `(H, W, 3)`, BGR.
        size: side of the network's images.
        mean: to subtract from gray / 255.
        std: to divide by.

    Returns:
        float32 `(1, size, size)`.
    """
    gray = (face @ np.float32([0.114, 0.587, 0.2989])).astype(np.uint8)  # torchvision's weights
    small = Image.fromarray(gray).resize((size, size), Image.Resampling.BILINEAR)
    return (np.asarray(small, np.float32)[None] / 255 - np.float32(mean)) / np.float32(std)


def read_file(path: Path) -> bytes:
    """Returns the bytes of a `.onnx` file.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {REMEDY}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def read_metadata(content: bytes, path: Path) -> dict:
    """Returns the metadata that export_onnx.py wrote, a value for each of KEYS.

    They lie in field 14 of the model, `metadata_props`, as entries of key (1) and value (2);
    see github.com/onnx/onnx/blob/main/onnx/onnx.proto.

    Raises:
        UserError: the content of `path` is no ONNX, or has no such metadata.
    """
    try:
        entries = [dict(fields(part)) for number, part in fields(content) if number == 14]
        texts = {entry.get(1, b""): entry.get(2, b"") for entry in entries}
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} is damaged or not ONNX; {REMEDY}") from error
    try:
        metadata = {key: json.loads(texts[key.encode()]) for key in KEYS}
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is not a model of this project; {REMEDY}") from error
    if metadata["format"] != FORMAT:
        raise UserError(f"{path} is of format {metadata['format']}, not {FORMAT}; {REMEDY}")
    return metadata


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields number and content of a protobuf message's fields that are not plain numbers.

    The encoding: protobuf.dev/programming-guides/encoding.

    Raises:
        ValueError, IndexError: it is no such message, or ends too early.
    """
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        kind = tag & 7
        if kind == 0:
            size = varint(message, at)[1] - at
        elif kind == 2:
            size, at = varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"no field is of kind {kind}")
        if at + size > len(message):
            raise ValueError("a field ends after the message")
        if kind == 2:
            yield tag >> 3, message[at : at + size]
        at += size


def varint(message: bytes, at: int) -> tuple[int, int]:
    """Returns the number that begins at byte `at`, seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
