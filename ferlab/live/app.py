"""The live loop: frames in; window, video, CSV and pictures out."""

import argparse
import contextlib
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ferlab.files import UserError
from ferlab.live.frames import FileSource, Frame, LiveSource
from ferlab.live.overlay import draw, label_of
from ferlab.live.pipeline import STAGES, Pipeline
from ferlab.live.recording import FaceLog, VideoFile, write_picture
from ferlab.live.tracking import Face
from ferlab.live.window import Window

LATE_SECONDS = 0.1  # that a video may lag behind its own speed and still catch up


class Summary:
    """Counts what a run saw.

    Attributes:
        frames, faces: how many.
        seconds_of: time of each expression, over all faces, seconds.
        ages: of live frames when shown, seconds.
    """

    def __init__(self) -> None:
        self.frames = self.faces = 0
        self.seconds_of: Counter[str] = Counter()
        self.ages: list[float] = []
        self.start = time.perf_counter()

    def text(self, seconds: dict[str, float], stills: bool) -> str:
        """Returns the lines printed at the end.

        Args:
            seconds: spent by stage, of `Pipeline`.
            stills: the frames were pictures: their faces are counted, they last no time.
        """
        frames, took = max(1, self.frames), time.perf_counter() - self.start
        lines = [f"{self.frames:,} frames, {self.faces:,} faces, {self.frames / took:.1f} frames/s"]
        unit, digits = ("faces", 0) if stills else ("seconds", 1)
        shares = [f"{name} {span:.{digits}f}" for name, span in self.seconds_of.most_common()]
        lines.append(f"{unit} of each expression: {', '.join(shares) or 'none'}")
        stages = ", ".join(f"{stage} {1e3 * seconds[stage] / frames:.1f}" for stage in STAGES)
        lines.append(f"milliseconds a frame: {stages}")
        if self.ages:
            lines.append(f"a frame's age when shown: {1e3 * np.median(self.ages):.0f} ms (median)")
        return "\n".join(lines)


class LiveRun:
    """One run from a source's first frame to its last.

    Args:
        args: the parsed flags of `live_inference.py`.
        pipeline: finds and classifies.
        source: where frames come from.
        window: where they are shown, if anywhere.
        stack: closes the files that are opened here, in whatever way the run ends.

    Raises:
        UserError: a file cannot be written, or its name does not fit the source.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        pipeline: Pipeline,
        source: FileSource | LiveSource,
        window: Window | None,
        stack: contextlib.ExitStack,
    ):
        self.args, self.pipeline, self.source, self.window = args, pipeline, source, window
        self.names = pipeline.classifier.class_names
        self.log = self.video = None
        if args.output and not source.stills:
            self.video = VideoFile(args.output, source.rate, steady=source.live)
            stack.callback(self.video.close)
        elif args.output and args.output.suffix and source.length != 1:
            raise UserError(f"--output {args.output}: of several pictures, name a folder")
        if args.log:
            self.log = FaceLog(args.log, self.names)
            stack.callback(self.log.close)
        self.bars, self.mirror = True, source.camera  # of a camera one expects a mirror
        self.help = self.paused = False
        self.frame: Frame | None = None
        self.faces: list[Face] = []  # shown: those found, and those lost a moment ago
        self.found: list[Face] = []  # in the newest frame
        self.picture: np.ndarray | None = None
        self.origin: float | None = None  # the clock's time at the source's time 0
        self.frame_seconds = self.span = 1 / source.rate
        self.kept: set[str] = set()  # pictures written
        self.summary = Summary()

    def go(self) -> None:
        """Goes through the source until it ends or the user ends it."""
        limit = self.args.max_frames
        total = min(filter(None, (limit, self.source.length)), default=None)
        hidden = self.args.quiet or self.source.live or total == 1
        with tqdm(total=total, unit="frame", disable=hidden) as progress:
            for frame in self.pipeline.frames(self.source):
                if frame is not None:
                    self.take(frame)
                    progress.update()
                if self.window and not self.attend(frame):
                    break
                if self.summary.frames == limit:
                    break

    def take(self, frame: Frame) -> None:
        """Finds, classifies, draws, writes and shows one frame."""
        if self.frame is not None:
            if self.source.live:  # its frames come unevenly
                self.span = min(1.0, frame.time_s - self.frame.time_s)
            since = frame.taken if self.source.live else time.perf_counter()
            before = self.frame.taken if self.source.live else self.taken_at
            self.frame_seconds += 0.1 * (since - before - self.frame_seconds)
        self.taken_at = time.perf_counter()
        self.frame = frame
        self.faces = self.pipeline.find(frame, self.source)
        self.found = self.pipeline.classify(frame, self.faces)
        start = time.perf_counter()
        stills = self.source.stills
        if self.window or self.args.output or (self.log and stills):
            self.picture = self.drawn()
        drawn = time.perf_counter()
        self.count(frame)
        if self.video:
            self.video.write(self.picture, frame.time_s)
        if stills:
            self.keep_still(frame)
        if self.window:
            self.window.show(self.picture)
        now = time.perf_counter()
        self.pipeline.seconds["drawing"] += drawn - start
        self.pipeline.seconds["output"] += now - drawn
        if self.source.live:
            self.summary.ages.append(now - frame.taken)

    def drawn(self) -> np.ndarray:
        """Returns the newest frame as it is shown."""
        status = []
        if not self.source.stills:
            status.append(f"{1 / max(1e-6, self.frame_seconds):.0f} frames/s")
            status.append(f"{1e3 * (time.perf_counter() - self.taken_at):.0f} ms")
            status += [] if self.faces else ["no face"]
        if self.paused:
            status.append("paused")
        return draw(
            self.frame.image,
            self.faces,
            self.names,
            self.args.min_confidence,
            bars=self.bars,
            mirror=self.mirror,
            status="  ".join(status),
            help_shown=self.help,
        )

    def count(self, frame: Frame) -> None:
        """Adds a frame's faces to summary and CSV; of pictures, prints what is seen."""
        self.summary.frames += 1
        for face in self.found:
            label, confidence = label_of(face, self.names, self.args.min_confidence)
            self.summary.faces += 1
            self.summary.seconds_of[label] += self.span
            if self.log:
                self.log.write(frame.number, frame.time_s, face, label, confidence)
            if self.source.stills:
                best = self.names[int(face.probs.argmax())]
                said = label if label == best else f"{label}, perhaps {best}"
                tqdm.write(f"{frame.name}: face {face.id} {face.place()} {said} {confidence:.2f}")
        if self.source.stills and not self.found:
            tqdm.write(f"{frame.name}: no face")

    def keep_still(self, frame: Frame) -> None:
        """Writes an annotated picture to --output, else beside the CSV."""
        output, source = self.args.output, Path(frame.name)
        name = f"{source.stem}_annotated.png"
        if name in self.kept:  # of a.jpg, and this is a.png
            name = f"{source.name}_annotated.png"
        self.kept.add(name)
        if output:
            write_picture(output if output.suffix else output / name, self.picture)
        elif self.log:
            write_picture(self.args.log.with_name(name), self.picture)

    def attend(self, frame: Frame | None) -> bool:
        """Serves the window: keys, pauses, a video's own speed; returns whether to go on."""
        now, wait = time.perf_counter(), 0.0
        if frame is not None and not (self.source.live or self.source.stills):
            if self.origin is None or now > self.origin + frame.time_s + LATE_SECONDS:
                self.origin = now - frame.time_s
            wait = self.origin + frame.time_s + 1 / self.source.rate - now
        key = self.window.key(round(1e3 * wait))
        held, since = self.source.stills and frame is not None, time.perf_counter()
        while True:
            if held and key and key not in "hmps":  # any other key: on to the next picture
                return key != "q"
            if self.act(key):
                return False
            if not (held or self.paused):
                break
            key = self.window.key(30)
        if self.origin is not None:
            self.origin += time.perf_counter() - since
        return True

    def act(self, key: str) -> bool:
        """Does what a key says; returns whether it says to quit."""
        if key == " ":
            self.paused = not self.paused
        elif key == "p":
            self.bars = not self.bars
        elif key == "m":
            self.mirror = not self.mirror
        elif key == "h":
            self.help = not self.help
        elif key == "s" and self.picture is not None:
            path = Path(f"screenshot_{datetime.now():%Y%m%d_%H%M%S_%f}.png")
            write_picture(path, self.picture)
            tqdm.write(f"wrote {path}")
        if key and key in " pmh" and self.frame is not None:
            self.picture = self.drawn()
            self.window.show(self.picture)
        return key == "q"
