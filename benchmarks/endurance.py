"""Memory of programs that run for long, and whether they lose anything on the way.

    python benchmarks/endurance.py                        # takes two and a half hours
    python benchmarks/endurance.py file --frames 100000
    python benchmarks/endurance.py camera server --minutes 60

* file: `live_inference.py` on a video of so many frames; the CSV must reach the last one.
* camera: the same on a stream of 30 frames per second, which breaks off every ten minutes.
* server: `live_inference.py --serve`, with visitors who come for a while, leave without a word, or
  stop reading.
* training: `basic_nn.py` for 60 epochs of the splits in --data-dir.

The memory of each process is read once per second (Linux). Printed are its median in the second
tenth of the time, when everything is loaded, and in the last tenth.
"""

import argparse
import asyncio
import http.server
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from benchmarks.serve import encoded_frames, visit
from ferlab import cli, entry
from ferlab.constants import ROOT
from ferlab.sample.dataset import clip_frames

RATE = 30  # frames per second of the camera
BREAK = 600  # seconds after which its stream ends, and the program connects anew
VISITORS = 4  # at a time


def parser() -> argparse.ArgumentParser:
    """Returns the benchmark's flags."""
    result = cli.parser(__doc__)
    add = result.add_argument
    add("programs", nargs="*", metavar="PROGRAM", help=f"of {', '.join(MEASURES)} (default: all)")
    add("--minutes", type=cli.positive(float), default=60, help="duration of camera and server")
    add("--frames", type=cli.positive(int), default=100_000, help="length of the video")
    add("--data-dir", type=Path, default=cli.DATA_DIR, help="folder of the split files")
    return result


def memory_of(process: subprocess.Popen, end: float) -> list[float]:
    """Returns the memory of a process, MB, each second until `end` or its end."""
    result = []
    while process.poll() is None and time.monotonic() < end:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        result.append(pages * 4096 / 1e6)
        time.sleep(1)
    return result


def line(name: str, memory: list[float], note: str) -> str:
    """Returns one line of the table."""
    tenth = max(1, len(memory) // 10)
    early, late = np.median(memory[tenth : 2 * tenth]), np.median(memory[-tenth:])
    return (
        f"{name:10}{len(memory):8,}{early:12.0f}{late:12.0f}{late - early:+12.0f}"
        f"{max(memory):10.0f}   {note}"
    )


def start(script: str, *flags: str) -> subprocess.Popen:
    """Starts a script of the project; its output can be read."""
    command = [sys.executable, script, *map(str, flags)]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def stop(process: subprocess.Popen) -> str:
    """Ends a program if it still runs; returns what it printed."""
    if process.poll() is None:
        process.terminate()
    return process.communicate(timeout=60)[0]


def small_clip(size: tuple[int, int] = (320, 240)) -> list[np.ndarray]:
    """Returns the frames of the drawn clip, uint8 BGR."""
    return [cv2.resize(frame, size) for frame, *_ in clip_frames()]


def measure_file(args: argparse.Namespace) -> str:
    """Measures `live_inference.py` on a long video."""
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder) / "long.avi", Path(folder) / "faces.csv"
        images = small_clip()
        size = images[0].shape[1::-1]
        video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, size)
        for number in range(args.frames):
            video.write(images[number % len(images)])
        video.release()
        program = start("live_inference.py", "--source", path, "--no-window", "--log", log)
        memory = memory_of(program, float("inf"))
        stop(program)
        with log.open() as file:
            seen = {int(row.split(",")[0]) for row in file if row[0].isdigit()}
    gap = max(np.diff(sorted(seen)))
    note = f"last frame in the CSV {max(seen):,}, longest gap {gap} frames"
    return line("file", memory, note)


class Stream(http.server.BaseHTTPRequestHandler):
    """Sends frames as a camera in the network does (MJPEG), and counts them."""

    images: ClassVar[list[bytes]] = []
    sent: ClassVar[list[int]] = []  # frames of each connection

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        begin, number = time.monotonic(), 0
        self.sent.append(0)
        while time.monotonic() < begin + BREAK:
            image = self.images[number % len(self.images)]
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + image + b"\r\n")
            except OSError:
                return
            number += 1
            self.sent[-1] = number
            time.sleep(max(0.0, begin + number / RATE - time.monotonic()))

    def log_message(self, *args: object) -> None:
        pass


def measure_camera(args: argparse.Namespace) -> str:
    """Measures `live_inference.py` on a stream that breaks off now and then."""
    Stream.images = [cv2.imencode(".jpg", image)[1].tobytes() for image in small_clip((640, 480))]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/video.mjpg"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "faces.csv"
        program = start("live_inference.py", "--source", url, "--no-window", "--log", log)
        memory = memory_of(program, time.monotonic() + 60 * args.minutes)
        alive = program.poll() is None
        stop(program)
        with log.open() as file:
            rows = sum(1 for _ in file) - 1
    server.shutdown()
    state = "" if alive else "ended too early; "
    note = f"{state}{sum(Stream.sent):,} frames in {len(Stream.sent)} connections, {rows:,} faces"
    return line("camera", memory, note)


async def come_and_go(url: str, frames: list[bytes], end: float, counts: dict[str, int]) -> None:
    """Is one visitor after another until `end`: one leaves, one breaks off, one stops reading."""
    from websockets.asyncio.client import connect

    while time.perf_counter() < end:
        kind, seconds = random.choice(("stays", "breaks off", "hangs")), random.uniform(5, 40)
        counts[kind] += 1
        until = min(end, time.perf_counter() + seconds)
        try:
            if kind == "hangs":
                async with connect(url, max_queue=1) as there:
                    for image in frames[:40]:
                        await there.send(bytes(8) + image)
                    await asyncio.sleep(until - time.perf_counter())
            else:
                visiting = asyncio.create_task(visit(url, frames, 10, 0, until))
                await asyncio.sleep((until - time.perf_counter()) * (0.5 if kind != "stays" else 1))
                if kind == "breaks off":
                    visiting.cancel()
                counts["answers"] += len(await visiting)
        except asyncio.CancelledError:
            pass
        except Exception:  # a visitor who hangs is sent away
            counts["sent away"] += 1


def measure_server(args: argparse.Namespace) -> str:
    """Measures the browser demo's server with visitors who come, go and hang."""
    frames = encoded_frames("sample", 10)
    program = start("live_inference.py", "--serve", "0")
    link = next(text for text in program.stdout if text.startswith("open ")).split()[1]
    url = link.replace("http", "ws") + "faces?kind=camera"
    counts = dict.fromkeys(("stays", "breaks off", "hangs", "sent away", "answers"), 0)

    async def all_visitors() -> None:
        end = time.perf_counter() + 60 * args.minutes
        await asyncio.gather(*(come_and_go(url, frames, end, counts) for _ in range(VISITORS)))

    visits = threading.Thread(target=lambda: asyncio.run(all_visitors()))
    visits.start()
    memory = memory_of(program, time.monotonic() + 60 * args.minutes)
    alive = program.poll() is None
    visits.join()
    stop(program)
    note = ", ".join(f"{kind} {count:,}" for kind, count in counts.items())
    return line("server", memory, ("" if alive else "ended too early; ") + note)


def measure_training(args: argparse.Namespace) -> str:
    """Measures the training of the MLP over many epochs."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--epochs", "60", "--data-dir", args.data_dir, "--results-dir", folder, "--quiet"]
        program = start("basic_nn.py", *flags)
        memory = memory_of(program, float("inf"))
        stop(program)
    return line("training", memory, "60 epochs of the MLP")


MEASURES = {
    "file": measure_file,
    "camera": measure_camera,
    "server": measure_server,
    "training": measure_training,
}


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    flags = parser()
    args = flags.parse_args(argv)
    if unknown := set(args.programs) - MEASURES.keys():
        flags.error(f"no such program: {', '.join(unknown)}")
    print("program    seconds    MB early     MB late      growth      most")
    for name in args.programs or MEASURES:
        print(MEASURES[name](args), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
