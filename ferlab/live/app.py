"""The live loop: reads frames, writes video, CSV and images, and serves the window."""

import contextlib
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ferlab.files import UserError
from ferlab.live.frames import FileSource, Frame
from ferlab.live.overlay import draw, label_of
from ferlab.live.pipeline import Pipeline
from ferlab.live.recording import FaceLog, VideoFile, write_image
from ferlab.live.streams import LiveSource
from ferlab.live.summary import Summary
from ferlab.live.tracking import Face
from ferlab.live.window import Window

NO_MAPS = "g needs the .pth file of the CNN"
VIEW_KEYS = "pmgh"  # change how the shown frame is drawn (overlay.KEYS lists all keys)
MAX_DELAY = 0.1  # seconds that a video may lag behind its own speed and still catch up


@dataclass(frozen=True)
class LiveOptions:
    """Options of a live run.

    Attributes:
        min_confidence: minimum probability for a label; "unsure" below it.
        output: annotated video; of still images an image, or a folder for several.
        log: CSV with one row per face and frame.
        max_frames: number of frames after which the run ends; None for no limit.
        quiet: shows no progress bar.
        codec: of the annotated video (see `encoders.SUFFIXES`); None for the suffix's default.
        explain: begins with Grad-CAM over the face in focus, or all faces of still images.
    """

    min_confidence: float
    output: Path | None = None
    log: Path | None = None
    max_frames: int | None = None
    quiet: bool = False
    codec: str | None = None
    explain: bool = False


class LiveRun:
    """One run over all frames of a source.

    Args:
        options: the options.
        pipeline: detects, tracks and classifies.
        source: the source of the frames.
        window: the window that shows the frames, if any.
        stack: closes the files that are opened here, however the run ends.

    Raises:
        UserError: a file cannot be written, or its name does not fit the source.
    """

    def __init__(
        self,
        options: LiveOptions,
        pipeline: Pipeline,
        source: FileSource | LiveSource,
        window: Window | None,
        stack: contextlib.ExitStack,
    ):
        self.options, self.pipeline, self.source, self.window = options, pipeline, source, window
        self.class_names = pipeline.classifier.class_names
        self.log = self.video = None
        output = options.output
        if output and not source.stills:
            self.video = VideoFile(output, source.rate, source.live, options.codec)
            stack.callback(self.video.close)
        elif output and not is_folder(output) and source.length != 1:
            raise UserError(f"--output {output}: for several images, name a folder")
        if options.log:
            if options.log.suffix.lower() != ".csv":
                raise UserError(f"--log {options.log}: the name must end in .csv")
            self.log = FaceLog(options.log, self.class_names, source.stills)
            stack.callback(self.log.close)
        self.bars, self.mirror = True, source.camera  # users expect a mirror image of themselves
        self.help = self.paused = False
        self.explained = options.explain
        self.notice = ""  # in the status line until the next key
        self.lost = ""  # what the user waits for, while a live source delivers no frames
        self.frame: Frame | None = None
        self.faces: list[Face] = []  # shown: detected, or lost a moment ago
        self.found: list[Face] = []  # detected in the newest frame
        self.annotated: np.ndarray | None = None
        self.origin: float | None = None  # the clock's time at the source's time 0
        self.frame_seconds = self.span = 1 / source.rate
        self.written: set[str] = set()  # names of annotated images
        self.summary = Summary()

    def run(self) -> None:
        """Processes the source until its end, or until the user quits."""
        limit = self.options.max_frames
        total = min(filter(None, (limit, self.source.length)), default=None)
        hidden = self.options.quiet or self.source.live or total == 1
        with tqdm(total=total, unit="frame", disable=hidden) as progress:
            for frame in self.pipeline.frames(self.source):
                if frame is not None:
                    self.process(frame)
                    progress.update()
                self.report_loss()
                if self.window and not self.serve_window(frame):
                    break
                if self.summary.frames == limit:
                    break

    def report_loss(self) -> None:
        """Reports on screen that a live source is lost, or is back."""
        status = self.source.status
        if bool(status) != bool(self.lost):
            change = "delivers no frames; reconnecting" if status else "delivers frames again"
            tqdm.write(f"{self.source.name} {change}", file=sys.stderr)
        if status != self.lost:
            self.lost = status
            self.show_again()

    def show_again(self) -> None:
        """Shows the newest frame again, after a change of its overlay."""
        if self.window and self.frame is not None:
            self.annotated = self.render()
            self.window.show(self.annotated)

    def process(self, frame: Frame) -> None:
        """Detects, classifies, draws, writes and shows one frame."""
        if self.frame is not None:
            if not self.source.stills:  # frames may come at uneven times
                self.span = min(1.0, frame.time_s - self.frame.time_s)
            now = frame.read_at if self.source.live else time.perf_counter()
            before = self.frame.read_at if self.source.live else self.started_at
            self.frame_seconds += 0.1 * (now - before - self.frame_seconds)
        self.started_at = time.perf_counter()
        self.frame = frame
        self.faces = self.pipeline.find(frame, self.source)
        self.found = self.pipeline.classify(frame, self.faces)
        if self.explained:
            self.pipeline.explain(frame, self.faces, self.source.stills)
        start = time.perf_counter()
        if self.window or self.options.output:
            self.annotated = self.render()
        rendered = time.perf_counter()
        self.record(frame)
        if self.video:
            self.video.write(self.annotated, frame.time_s)
        elif self.options.output:
            self.write_still(frame, self.options.output)
        if self.window:
            self.window.show(self.annotated)
        now = time.perf_counter()
        self.pipeline.seconds["drawing"] += rendered - start
        self.pipeline.seconds["output"] += now - rendered
        if self.source.live:
            self.summary.latencies.append(now - frame.read_at)

    def render(self) -> np.ndarray:
        """Returns the newest frame with its overlay."""
        status = [self.lost] if self.lost else []
        if not self.lost and not self.source.stills:
            status.append(f"{1 / max(1e-6, self.frame_seconds):.0f} frames/s")
            status.append(f"{1e3 * (time.perf_counter() - self.started_at):.0f} ms")
            status += [] if self.faces else ["no face"]
        if self.paused:
            status.append("paused")
        status += ["Grad-CAM"] * self.explained + [self.notice] * bool(self.notice)
        return draw(
            self.frame.image,
            self.faces,
            self.class_names,
            self.options.min_confidence,
            bars=self.bars,
            mirror=self.mirror,
            status="  ".join(status),
            help_shown=self.help,
        )

    def record(self, frame: Frame) -> None:
        """Adds a frame's faces to the summary and the CSV; prints those of still images."""
        self.summary.frames += 1
        for face in self.found:
            label, confidence = label_of(face, self.class_names, self.options.min_confidence)
            self.summary.faces += 1
            self.summary.seconds_of[label] += self.span
            if self.log:
                self.log.write(frame, face, label, confidence)
            if self.source.stills:
                best = self.class_names[int(face.probs.argmax())]
                text = label if label == best else f"{label}, most likely {best}"
                box = face.rounded_box()
                tqdm.write(f"{frame.name}: face {face.id} {box} {text} {confidence:.2f}")
        if self.source.stills and not self.found:
            tqdm.write(f"{frame.name}: no face")

    def write_still(self, frame: Frame, output: Path) -> None:
        """Writes an annotated image to `output`, a file or a folder."""
        source = Path(frame.name)
        name = f"{source.stem}_annotated.png"
        if name in self.written:  # a.jpg and a.png
            name = f"{source.name}_annotated.png"
        self.written.add(name)
        write_image(output / name if is_folder(output) else output, self.annotated)

    def serve_window(self, frame: Frame | None) -> bool:
        """Handles keys, pauses and a video's own speed; returns False to quit."""
        now, wait = time.perf_counter(), 0.0
        if frame is not None and not (self.source.live or self.source.stills):
            if self.origin is None or now > self.origin + frame.time_s + MAX_DELAY:
                self.origin = now - frame.time_s
            wait = self.origin + frame.time_s + 1 / self.source.rate - now
        key = self.window.key(round(1e3 * wait))
        held, since = self.source.stills and frame is not None, time.perf_counter()
        while True:
            if held and key and key not in VIEW_KEYS + "s":  # any other key: the next image
                return key != "q"
            if self.handle_key(key):
                return False
            if not (held or self.paused):
                break
            key = self.window.key(30)
        if self.origin is not None:
            self.origin += time.perf_counter() - since
        return True

    def handle_key(self, key: str) -> bool:
        """Does what a key stands for; returns True to quit."""
        noticed = self.notice
        if key:
            self.notice = ""
        if key == " ":
            self.paused = not self.paused
        elif key == "p":
            self.bars = not self.bars
        elif key == "m":
            self.mirror = not self.mirror
        elif key == "g":
            self.explain_or_not()
        elif key == "h":
            self.help = not self.help
        elif key == "s" and self.annotated is not None:
            path = Path(f"screenshot_{datetime.now():%Y%m%d_%H%M%S_%f}.png")
            write_image(path, self.annotated)
            tqdm.write(f"wrote {path}")
        if key and (key in VIEW_KEYS + " " or noticed):
            self.show_again()
        return key == "q"

    def explain_or_not(self) -> None:
        """Turns Grad-CAM on or off, also for the frame that is shown."""
        if not self.pipeline.classifier.explains:
            self.notice = NO_MAPS
            return
        self.explained = not self.explained
        for face in self.faces:
            face.cam = None
        if self.explained and self.frame is not None:
            self.pipeline.explain(self.frame, self.faces, self.source.stills)


def is_folder(output: Path) -> bool:
    """Whether `--output` names a folder for annotated images, which may not exist yet."""
    return output.is_dir() or not output.suffix
