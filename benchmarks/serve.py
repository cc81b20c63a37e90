"""Visitors that one machine serves in the browser demo, at a fixed rate of frames each.

    python benchmarks/serve.py
    python benchmarks/serve.py --source video.mp4 --visitors 1 2 4 8

Starts `live_inference.py --serve` anew for each number of visitors. Each visitor sends the frames
of a clip (JPEG, at most 640 pixels wide) at --rate, one at a time, as the page does: a frame that
is due while the last answer has not come is left out. Latency is the time from sending a frame to
its answer; CPU is the server's time per answer, on all cores together.
"""

import argparse
import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from ferlab import cli, entry
from ferlab.constants import ROOT
from ferlab.live.onnx_classifier import require_packages
from ferlab.live.sources import open_source

WIDTH = 640  # of a frame, as the page sends it


def parser() -> argparse.ArgumentParser:
    """Returns the benchmark's flags."""
    result = cli.parser(__doc__)
    add = result.add_argument
    add("--source", default="sample", help="video file, or: sample")
    add("--visitors", type=cli.positive(int), nargs="+", default=[1, 2, 4, 8], help="numbers")
    add("--rate", type=cli.positive(float), default=10, help="frames per second of a visitor")
    add("--seconds", type=cli.positive(float), default=15, help="duration of each measurement")
    return result


def encoded_frames(source: str, rate: float) -> list[bytes]:
    """Returns a clip's frames as JPEG, `rate` of them per second."""
    reader, frames, due = open_source(source), [], 0.0
    while not reader.ended:
        frame = reader.read(timeout=5)
        if frame is None or frame.time_s < due:
            continue
        due += 1 / rate
        scale = min(1.0, WIDTH / frame.image.shape[1])
        small = cv2.resize(frame.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        frames.append(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())
    reader.close()
    return frames


async def visit(url: str, frames: list[bytes], rate: float, first: int, end: float) -> list[float]:
    """Sends frames until `end`, by `time.perf_counter`; returns the latencies, seconds."""
    from websockets.asyncio.client import connect

    latencies: list[float] = []
    async with connect(url) as there:
        await there.recv()
        start = time.perf_counter() + first / 100  # visitors do not come at the same moment
        while (now := time.perf_counter()) < end:
            number = max(0, int((now - start) * rate)) + 1
            await asyncio.sleep(max(0.0, start + number / rate - now))
            sent = time.perf_counter()
            image = frames[(first + number) % len(frames)]
            await there.send(struct.pack("<d", number / rate) + image)
            answer = json.loads(await there.recv())
            if "error" in answer:
                raise RuntimeError(answer["error"])
            latencies.append(time.perf_counter() - sent)
    return latencies


async def visit_all(
    url: str, frames: list[bytes], rate: float, visitors: int, seconds: float
) -> list[float]:
    """Returns the latencies of all visitors together, seconds."""
    end = time.perf_counter() + seconds
    visits = (visit(url, frames, rate, 7 * number, end) for number in range(visitors))
    return [latency for result in await asyncio.gather(*visits) for latency in result]


def cpu_seconds(pid: int) -> float:
    """Returns the processor time that a process has used, seconds (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(frames: list[bytes], rate: float, visitors: int, seconds: float) -> str:
    """Returns one line of the table."""
    command = [sys.executable, "live_inference.py", "--serve", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
    try:
        link = next(line for line in server.stdout if line.startswith("open ")).split()[1]
        url = link.replace("http", "ws") + "faces?kind=camera"
        asyncio.run(visit_all(url, frames, rate, 1, 2))  # the first results wait for the cascade
        idle = cpu_seconds(server.pid)
        latencies = asyncio.run(visit_all(url, frames, rate, visitors, seconds))
        spent = cpu_seconds(server.pid) - idle
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
    median, high = 1e3 * np.quantile(latencies, [0.5, 0.95])
    each = len(latencies) / seconds / visitors
    return f"{visitors:8}{each:18.1f}{median:12.0f}{high:18.0f}{1e3 * spent / len(latencies):16.1f}"


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    args = parser().parse_args(argv)
    require_packages(["websockets"])
    frames = encoded_frames(args.source, args.rate)
    print("visitors   results/s each   median ms   95th percentile   CPU ms/result")
    for visitors in args.visitors:
        print(measure(frames, args.rate, visitors, args.seconds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
