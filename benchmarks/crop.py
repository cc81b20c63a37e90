"""Which margin around a face box, and whether histogram equalisation, suits the network.

    python benchmarks/crop.py
    python benchmarks/crop.py --images labels.csv --weights results/advanced_model.pth

Live crops should match the dataset's crops, which the network was trained on. The first table
measures these: centre and side of the Haar box in the images of the val split, enlarged four times,
as fractions of the image's side. A side of 1 means that a Haar box without margin matches.

The second table, for a CSV with the columns file (relative to the CSV) and expression (one or
several accepted ones, separated by spaces), compares margins, with and without histogram
equalisation: the number of correctly classified faces, and the mean probability of the accepted
expressions.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tables import read_rows
from ferlab import cli, entry
from ferlab.constants import CLASS_NAMES
from ferlab.data.splits import gray_levels, load_split
from ferlab.files import UserError
from ferlab.live.classifier import Classifier
from ferlab.live.detection import HaarDetector, crop_face, load_cascade
from ferlab.live.weights import default_weights

MARGINS = (-0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2)
ZOOM, PADDING = 4, 48  # Haar detects a face that fills the image only with padding


def boxes_in_dataset(images: np.ndarray) -> np.ndarray:
    """Returns float `(M, 3)`: centre x, y and side of the Haar box, as fractions of the side.

    Args:
        images: uint8 `(N, 48, 48)`; those without a detection are left out.
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
    """Returns the images, uint8 `(H, W, 3)` BGR, listed in a CSV, with their expressions.

    Raises:
        UserError: the file is not such a CSV, or an image cannot be read.
    """
    images = []
    for number, row in enumerate(read_rows(path, ("file", "expression"), "--images"), start=2):
        image = cv2.imread(str(path.parent / row["file"]))
        if image is None:
            raise UserError(f"--images {path}, line {number}: OpenCV cannot read {row['file']}")
        expressions = set(row["expression"].split())
        if not expressions or expressions - set(CLASS_NAMES):
            raise UserError(
                f"--images {path}, line {number}: expression {row['expression']!r} is not one of "
                f"{', '.join(CLASS_NAMES)}"
            )
        images.append((image, expressions))
    return images


def agreement(
    classifier: Classifier, faces: list[tuple[np.ndarray, tuple, set]], margin: float, equal: bool
) -> tuple[int, float]:
    """Returns the number of correct faces, and the mean probability of their labels."""
    crops = []
    for image, box, _ in faces:
        crop = crop_face(image, box, margin)
        if equal:
            gray = cv2.equalizeHist(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY))
            crop = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
        crops.append(crop)
    probs = classifier(crops)
    names = classifier.class_names
    correct = sum(
        names[row.argmax()] in wanted for row, (*_, wanted) in zip(probs, faces, strict=True)
    )
    expected = [
        sum(row[names.index(name)] for name in wanted)
        for row, (*_, wanted) in zip(probs, faces, strict=True)
    ]
    return correct, float(np.mean(expected))


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--data-dir", type=Path, default=cli.DATA_DIR, help="folder of the val split"
    )
    parser.add_argument(
        "--images", type=Path, help="CSV file of labelled images: columns file, expression"
    )
    parser.add_argument(
        "--weights", type=Path, help="weights file of the CNN (default: that of live_inference.py)"
    )
    args = parser.parse_args(argv)
    labelled = read_labels(args.images) if args.images else []

    images = gray_levels(load_split(args.data_dir, "val").images[:, 0]).numpy()
    rows = boxes_in_dataset(images)
    print(f"Haar boxes in {len(images):,} val images: detected in {len(rows):,}")
    if len(rows):
        print(f"{'percentile':12}{'5':>8}{'25':>8}{'50':>8}{'75':>8}{'95':>8}")
        for name, column in zip(("centre x", "centre y", "side"), rows.T, strict=True):
            cells = "".join(f"{q:8.3f}" for q in np.percentile(column, (5, 25, 50, 75, 95)))
            print(f"{name:12}{cells}")
    if labelled:
        weights = args.weights or default_weights()
        print(f"weights: {weights}")
        classifier, detector, faces = Classifier(weights), HaarDetector(), []
        for image, wanted in labelled:
            boxes = detector.in_still(image, cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
            faces += [(image, box, wanted) for box in boxes]
        print(f"\n{len(faces)} faces      not equalised          equalised")
        print(f"{'margin':10}{'correct':>9}{'mean prob':>11}{'correct':>10}{'mean prob':>11}")
        for margin in MARGINS:
            plain = agreement(classifier, faces, margin, equal=False)
            equal = agreement(classifier, faces, margin, equal=True)
            print(f"{margin:<10.2f}{plain[0]:9}{plain[1]:11.3f}{equal[0]:10}{equal[1]:11.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
