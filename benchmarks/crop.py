"""How much of the surroundings of a face box the network should see, and whether to equalise it.

    python benchmarks/crop.py
    python benchmarks/crop.py --pictures labels.csv --weights results/advanced_model.pth

The network was trained on the dataset's crops, so a live crop should show as much as they do. The
first table measures that: where the Haar cascade sees the face in the pictures of the val split,
enlarged four times, and how long its side is as a share of the picture's. A share of 1 means that
a Haar box without any margin is the crop that the network knows.

The second table, for a CSV with the columns file (relative to the CSV) and expression (several
accepted ones parted by blanks), tries margins, with and without histogram equalisation: how many
of the pictures' faces are labelled as expected, and the mean probability of what is expected.
"""

import csv
import sys
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from advanced_network import CNN
from ferlab import cli
from ferlab.data.splits import gray_levels, load_split
from ferlab.files import UserError
from ferlab.live.classifier import Classifier
from ferlab.live.detection import HaarDetector, cut_out, load_cascade

MARGINS = (-0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2)
ZOOM, PADDING = 4, 48  # a face that fills a picture is found only with something around it


def boxes_in_dataset(images: np.ndarray) -> np.ndarray:
    """Returns float `(M, 3)`: centre x, y and side of the Haar box, shares of the picture's side.

    Args:
        images: uint8 `(N, 48, 48)`; those without a found face are left out.
    """
    cascade, rows = load_cascade(), []
    for image in tqdm(images, unit="image", leave=False):
        side = ZOOM * len(image)
        big = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
        big = cv2.copyMakeBorder(big, *[PADDING] * 4, cv2.BORDER_REPLICATE)
        found = cascade.detectMultiScale(big, 1.05, 5, minSize=(side // 2, side // 2))
        if len(found):
            x, y, w, h = max(found, key=lambda box: box[2])
            centre = np.array([x + w / 2, y + h / 2]) - PADDING
            rows.append([*centre / side, w / side])
    return np.array(rows).reshape(-1, 3)


def read_labels(path: Path) -> list[tuple[np.ndarray, set[str]]]:
    """Returns the pictures, uint8 `(H, W, 3)` BGR, that a CSV lists, with what they may show."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pictures = []
    for row in rows:
        picture = cv2.imread(str(path.parent / row["file"]))
        if picture is None:
            raise UserError(f"{path}: {row['file']} is no picture that OpenCV can read")
        pictures.append((picture, set(row["expression"].split())))
    return pictures


def agreement(
    classifier: Classifier, faces: list[tuple[np.ndarray, tuple, set]], margin: float, equal: bool
) -> tuple[int, float]:
    """Returns how many faces are labelled as expected, and the mean probability of that."""
    crops = []
    for picture, box, _ in faces:
        crop = cut_out(picture, box, margin)
        if equal:
            gray = cv2.equalizeHist(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY))
            crop = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
        crops.append(crop)
    probs = classifier(crops)
    names = classifier.class_names
    right = sum(
        names[row.argmax()] in wanted for row, (*_, wanted) in zip(probs, faces, strict=True)
    )
    shares = [
        sum(row[names.index(name)] for name in wanted)
        for row, (*_, wanted) in zip(probs, faces, strict=True)
    ]
    return right, float(np.mean(shares))


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("--data-dir", type=Path, default=cli.DATA_DIR, help="of the val split")
    parser.add_argument("--pictures", type=Path, help="CSV with the columns file, expression")
    parser.add_argument(
        "--weights", type=Path, default=cli.RESULTS_DIR / "advanced_model.pth", help="of the CNN"
    )
    args = parser.parse_args(argv)

    images = gray_levels(load_split(args.data_dir, "val").images[:, 0]).numpy()
    rows = boxes_in_dataset(images)
    print(f"Haar boxes in {len(images):,} val pictures: found in {len(rows):,}")
    if len(rows):
        print(f"{'percentile':12}{'5':>8}{'25':>8}{'50':>8}{'75':>8}{'95':>8}")
        for name, column in zip(("centre x", "centre y", "side"), rows.T, strict=True):
            shares = "".join(f"{q:8.3f}" for q in np.percentile(column, (5, 25, 50, 75, 95)))
            print(f"{name:12}{shares}")
    if args.pictures:
        classifier, detector, faces = Classifier(args.weights, "advanced", CNN), HaarDetector(), []
        for picture, wanted in read_labels(args.pictures):
            boxes = detector(picture, cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY))
            faces += [(picture, box, wanted) for box in boxes]
        print(f"\n{len(faces)} faces     as they are          equalised")
        print(f"{'margin':10}{'right':>7}{'mean prob':>11}{'right':>10}{'mean prob':>11}")
        for margin in MARGINS:
            plain = agreement(classifier, faces, margin, equal=False)
            equal = agreement(classifier, faces, margin, equal=True)
            print(f"{margin:<10.2f}{plain[0]:7}{plain[1]:11.3f}{equal[0]:10}{equal[1]:11.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
