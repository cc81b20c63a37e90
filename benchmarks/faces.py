"""False boxes and lost faces of the live program on labelled images and videos.

    python benchmarks/faces.py --truth faces.csv --media folder

The truth is a CSV with the columns file, first, last, x, y, w, h: the box of one face in the frames
from first to last (0 and 0 for an image), in pixels. A box with an IoU of at least 0.35 with a true
face that has none yet is a hit; each other box is false. Files of the folder without a row show no
face. "one cascade" searches each whole frame as tutorials do, without a second cascade's agreement;
in videos the live program tracks what it detects.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tables import read_rows
from ferlab import cli, entry
from ferlab.files import UserError
from ferlab.live import flags
from ferlab.live.boxes import Box, iou, scaled
from ferlab.live.detection import MAX_WIDTH, HaarDetector, limit_width, load_cascade
from ferlab.live.pipeline import Pipeline, reserve_detector_core
from ferlab.live.sources import open_source

COLUMNS = ("file", "first", "last", "x", "y", "w", "h")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".mp4", ".mkv", ".mov", ".avi", ".gif"}
HIT = 0.35  # minimum IoU with the true face
Span = tuple[int, int, Box]  # first and last frame, and a true face in them


def read_truth(path: Path) -> dict[str, list[Span]]:
    """Returns the true faces of each file.

    Raises:
        UserError: the file is not a CSV with these columns.
    """
    truth = defaultdict(list)
    for number, row in enumerate(read_rows(path, COLUMNS, "--truth"), start=2):
        try:
            first, last, *box = (int(row[column]) for column in COLUMNS[1:])
        except ValueError as error:
            raise UserError(f"--truth {path}, line {number}: {error}") from error
        truth[row["file"]].append((first, last, tuple(box)))
    return truth


def count(boxes: list[Box], faces: list[Box]) -> tuple[int, int]:
    """Returns the numbers of hits and of false boxes in one frame."""
    pairs = [(iou(box, face), b, f) for b, box in enumerate(boxes) for f, face in enumerate(faces)]
    hit_boxes, hit_faces = set(), set()
    for value, box, face in sorted(pairs, reverse=True):
        if value >= HIT and box not in hit_boxes and face not in hit_faces:
            hit_boxes.add(box)
            hit_faces.add(face)
    return len(hit_boxes), len(boxes) - len(hit_boxes)


def one_cascade(path: Path) -> Iterator[list[Box]]:
    """Yields the boxes of a detection in each whole frame."""
    cascade, source = load_cascade(), open_source(str(path))
    while not source.ended:
        if (frame := source.read(0.1)) is not None:
            resized, scale = limit_width(frame.gray, MAX_WIDTH)
            found = cascade.detectMultiScale(resized, 1.1, 5, minSize=(30, 30))
            yield [scaled(box, scale) for box in found]
    source.close()


def program(path: Path) -> Iterator[list[Box]]:
    """Yields the boxes that the live program finds in each frame; classifies none."""
    default = flags.parser(None).get_default
    source = open_source(str(path))
    pipeline = Pipeline(HaarDetector(), None, default("smoothing"), default("classify_rate"))
    for frame in pipeline.frames(source):
        if frame is not None:
            faces = pipeline.find(frame, source)
            yield [face.rounded_box() for face in faces if face.found_at == frame.time_s]
    pipeline.close()
    source.close()


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--truth", type=Path, required=True, help=f"CSV file with the columns {', '.join(COLUMNS)}"
    )
    parser.add_argument("--media", type=Path, required=True, help="folder of the images and videos")
    parser.add_argument("--each", action="store_true", help="print a line for each file")
    args = parser.parse_args(argv)
    truth = read_truth(args.truth)
    files = sorted(path for path in args.media.glob("*") if path.suffix.lower() in SUFFIXES)
    if absent := truth.keys() - {path.name for path in files}:
        raise UserError(f"--truth {args.truth}: {args.media} has no {sorted(absent)[0]}")
    reserve_detector_core()
    sums = defaultdict(lambda: [0, 0, 0, 0, 0.0])
    for path in files:
        kind = "images" if cv2.haveImageReader(str(path)) and path.suffix != ".gif" else "videos"
        for name, find in (("one cascade", one_cascade), ("live_inference.py", program)):
            row, start = [0, 0, 0, 0, 0.0], time.perf_counter()
            for number, boxes in enumerate(find(path)):
                faces = [box for first, last, box in truth[path.name] if first <= number <= last]
                hits, false = count(boxes, faces)
                row = [a + b for a, b in zip(row, (1, len(faces), hits, false, 0.0), strict=True)]
            row[4] = time.perf_counter() - start
            sums[kind, name] = [a + b for a, b in zip(sums[kind, name], row, strict=True)]
            if args.each:
                print(f"{path.name[:40]:42}{name:20} faces {row[1]}, hits {row[2]}, false {row[3]}")
    print(f"{'':30}{'frames':>8}{'faces':>8}{'detected':>12}{'false':>8}{'seconds':>9}")
    for (kind, name), (frames, faces, hits, false, seconds) in sorted(sums.items()):
        detected = f"{hits} = {100 * hits / max(1, faces):.1f} %"
        print(f"{kind + ': ' + name:30}{frames:8}{faces:8}{detected:>16}{false:6}{seconds:9.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
