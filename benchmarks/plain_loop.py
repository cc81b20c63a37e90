"""The live loop as tutorials write it, and the videos that the benchmark of both loops reads."""

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from ferlab.live.classifier import as_input
from ferlab.live.detection import crop_face, load_cascade
from ferlab.training.weights import load_model

THREADS = torch.get_num_threads()


class Plain:
    """The plain loop."""

    def __init__(self, weights: Path):
        self.model, content = load_model(weights)
        self.names = content["class_names"]
        self.cascade = load_cascade()

    def __call__(self, frame: np.ndarray) -> tuple[int, float]:
        """Processes a frame; returns the number of faces and the seconds of classification."""
        gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        boxes, spent = self.cascade.detectMultiScale(gray, 1.1, 5, minSize=(30, 30)), 0.0
        for x, y, w, h in boxes:
            start = time.perf_counter()
            with torch.no_grad():
                logits = self.model(as_input(crop_face(frame, (x, y, w, h), 0.0))[None])
            spent += time.perf_counter() - start
            cv2.rectangle(frame, (x, y), (x + w, y + h), (255, 0, 0), 2)
            text = self.names[int(logits.argmax())]
            cv2.putText(frame, text, (x, y - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 0, 0), 2)
        return len(boxes), spent


def all_cores() -> None:
    """Restores the default numbers of threads of OpenCV and torch."""
    cv2.setNumThreads(-1)
    torch.set_num_threads(THREADS)


def frames_of(video: Path) -> Iterator[np.ndarray]:
    """Yields the frames of a video file as OpenCV reads them."""
    capture = cv2.VideoCapture(str(video))
    there, frame = capture.read()
    while there:
        yield frame
        there, frame = capture.read()


def resized(video: Path, new: tuple[int, int], folder: Path) -> Path:
    """Writes `video` at another size, padded with black bars; returns the file."""
    target = folder / f"{new[0]}x{new[1]}.mp4"
    rate = cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FPS)
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter_fourcc(*"mp4v"), rate, new)
    for frame in frames_of(video):
        scale = min(new[0] / frame.shape[1], new[1] / frame.shape[0])
        inner = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
        left, top = (new[0] - inner[0]) // 2, (new[1] - inner[1]) // 2
        canvas = np.zeros((new[1], new[0], 3), np.uint8)
        canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(frame, inner)
        writer.write(canvas)
    writer.release()
    return target
