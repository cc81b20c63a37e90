"""How many images have a near-duplicate in the train split, and whether accuracy depends on them.

    python benchmarks/near_duplicates.py

`dataset_preparation.py` removes identical images from train; the same photograph in another crop
remains. Each image of val and test is compared with all train images and their flips: the
correlation of their grey levels at half size, after the means are subtracted. For each threshold
the table shows how many images have a near-duplicate above it, the fraction of these with the label
of the near-duplicate, and the accuracy by the labels, with one and without, of each model that was
trained on labels. A gain that remains without near-duplicates is not due to memorised images.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.nn import functional as F

from ferlab import cli, entry, stage
from ferlab.evaluation.runs import Run, read_correct, read_folder
from ferlab.files import UserError

THRESHOLDS = (0.99, 0.95, 0.9, 0.8)
CHUNK = 4096  # train images at a time: 60 MB of correlations with 3,600 others


def unit_vectors(images: torch.Tensor) -> torch.Tensor:
    """Maps images `(N, 1, H, W)` to float32 `(N, H * W / 4)` whose products are correlations."""
    small = F.avg_pool2d(images, 2).flatten(1)
    return F.normalize(small - small.mean(1, keepdim=True), dim=1)


def nearest(images: torch.Tensor, train: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the highest correlation of each image with a train image, and its index.

    Args:
        images: float32 `(N, 1, H, W)`.
        train: the same of M images; their flips are compared too.

    Returns:
        float32 `(N,)` in [-1, 1] and int64 `(N,)`.
    """
    faces = [unit_vectors(images), unit_vectors(images.flip(-1))]
    most = torch.full((len(images),), -torch.inf)
    place = torch.zeros(len(images), dtype=torch.int64)
    for first in range(0, len(train), CHUNK):
        others = unit_vectors(train[first : first + CHUNK])
        for own in faces:
            value, index = (own @ others.T).max(1)
            place = torch.where(value > most, index + first, place)
            most = torch.maximum(value, most)
    return most, place


def row(duplicates: torch.Tensor, same: torch.Tensor, correct: list[torch.Tensor]) -> list[str]:
    """Returns the cells of a threshold.

    Args:
        duplicates: bool `(N,)`, whether an image has a near-duplicate.
        same: bool `(N,)`, whether its nearest train image has the same label.
        correct: bool `(N,)` for each model, whether it classifies the image correctly.
    """

    def fraction(right: torch.Tensor, of: torch.Tensor) -> str:
        return f"{right[of].float().mean():.3f}" if of.any() else "-"

    cells = [f"{int(duplicates.sum()):,}", fraction(same, duplicates)]
    return cells + [
        f"{fraction(right, duplicates)} / {fraction(right, ~duplicates)}" for right in correct
    ]


def judged(run: Run) -> bool:
    """Returns whether a run is compared: that of a network trained on the labels."""
    return run.parameters > 0 and run.targets == "labels"


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("--data-dir", type=Path, default=cli.DATA_DIR, help="folder of the splits")
    parser.add_argument(
        "--results-dir", type=Path, default=cli.RESULTS_DIR, help="folder of the predictions"
    )
    args = parser.parse_args(argv)
    splits = stage.load_splits(args.data_dir, ("train",))
    train = splits.pop("train")
    runs: list[Run] = [run for run in read_folder(args.results_dir)[0] if judged(run)]
    for name, split in splits.items():
        most, place = nearest(split.images, train.images)
        same = train.labels[place] == split.labels
        there, digest = [run for run in runs if name in run.splits], split.digest()
        for run in there:
            if run.splits[name]["digest"] != digest:
                raise UserError(f"{run.path} is of other {name} images than {args.data_dir}")
        correct = [torch.from_numpy(read_correct(run, name, "labels")[1]) for run in there]
        heads = [f"{run.title}: with / without" for run in there]
        print(f"{name}, {len(split):,} images")
        print(f"{'above':>10} {'images':>6} {'same label':>11}", *(f"{h:>34}" for h in heads))
        for threshold in THRESHOLDS:
            count, label, *models = row(most > threshold, same, correct)
            print(f"{threshold:10.2f} {count:>6} {label:>11}", *(f"{cell:>34}" for cell in models))
    return 0


if __name__ == "__main__":
    sys.exit(main())
