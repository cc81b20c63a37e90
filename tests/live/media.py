"""Small videos and images, made by code, untrained weights, and the rows of a CSV."""

import csv
import time
from fractions import Fraction

import cv2
import numpy as np
import pytest

from conftest import drawn_frame


def picture(level, shape=(48, 64, 3)):
    return np.full(shape, level, np.uint8)


def everything(source, seconds=10):
    """Reads a source to its end; returns the frames."""
    frames, deadline = [], time.monotonic() + seconds
    while not source.ended:
        assert time.monotonic() < deadline
        frame = source.read(0.05)
        frames += [frame] if frame else []
    source.close()
    return frames


def write_video(path, count=25, rate=12.5, size=(64, 48), code="MJPG"):
    """Writes a video of rising levels of grey with OpenCV."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), rate, size)
    for number in range(count):
        writer.write(picture(10 * number % 256, (*size[::-1], 3)))
    writer.release()
    return path


def write_timed(path, times, codec="libx264", rate=30, size=(64, 48), **options):
    """Writes a video with PyAV whose frames have the time stamps `times`, whole milliseconds."""
    av = pytest.importorskip("av")
    container = av.open(str(path), "w", options=options)
    fast = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx" else {}
    stream = container.add_stream(codec, rate=rate, options=fast)
    stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
    stream.codec_context.time_base = Fraction(1, 1000)
    stream.codec_context.gop_size = 12
    for number, time_s in enumerate(times):
        frame = av.VideoFrame.from_ndarray(picture(10 * number % 256, (*size[::-1], 3)), "bgr24")
        frame.pts, frame.time_base = round(1000 * time_s), Fraction(1, 1000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
    container.close()
    return path


def frames_of(path):
    """Returns the mean level of each frame of a video, and its frame rate."""
    video, levels = cv2.VideoCapture(str(path)), []
    while True:
        there, frame = video.read()
        if not there:
            return levels, video.get(cv2.CAP_PROP_FPS)
        levels.append(float(frame.mean()))


def film(seconds=0.0):
    """Yields frames of a drawn face that moves."""
    for number in range(60):
        yield drawn_frame([(300 + number, 240, 80)])[0]
        time.sleep(seconds)


def rows_of(path):
    return list(csv.DictReader(path.open(encoding="utf-8")))


def untrained_weights(folder):
    """Writes weights of a small network, for tests in which the predictions do not matter."""
    from advanced_network import CNN
    from ferlab.data.splits import CLASS_NAMES
    from ferlab.training.weights import save_model

    path = folder / "advanced_model.pth"
    config = {"classes": 7, "widths": [8, 8, 8], "blocks": 1}
    save_model(path, "advanced", CNN(**config), config, CLASS_NAMES, {})
    return path
