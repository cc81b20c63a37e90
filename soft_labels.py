"""Soft labels: what trained CNNs think of each training face, for the next CNN to learn from.

    python soft_labels.py                                  # of results/advanced_model.pth
    python soft_labels.py --weights A.pth B.pth            # of an ensemble
    python advanced_network.py --preset best               # learns from them

    python advanced_network.py --leave-out 1/2 --results-dir A    # or of networks that have
    python advanced_network.py --leave-out 2/2 --results-dir B    # not learned those faces
    python soft_labels.py --weights A/advanced_model.pth B/advanced_model.pth

A face's label is one rater's word; many faces show two expressions, and some labels are wrong. The
teachers' probabilities tell so, and a student that learns from labels and teachers alike does
better than its teacher (knowledge distillation, arXiv 1503.02531; the same network again, arXiv
1805.04770). Each face is seen in several augmented views, as in the first teacher's training: on
the plain picture they would repeat the labels they have learned by heart. A teacher that left out a
part of the faces knows nothing of it by heart, and is asked of that part alone. Only the train
split is read.
"""

import sys
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from advanced_network import CNN
from ferlab import cli
from ferlab.data.augmentation import Augmentation
from ferlab.data.splits import Split, load_split, rows_of_part
from ferlab.files import UserError, require_writable
from ferlab.training import distillation
from ferlab.training.checkpoint import load_model
from ferlab.training.device import autocast, choose_device, choose_precision
from ferlab.training.prediction import batch_of

VIEWS = 8  # of each face


@torch.inference_mode()
def mean_probs(
    teachers: list[tuple[nn.Module, torch.Tensor]],
    train: Split,
    augmentation: Augmentation,
    views: int,
    seed: int,
    precision: torch.dtype,
    quiet: bool,
) -> torch.Tensor:
    """Returns the teachers' mean probabilities over augmented views.

    Args:
        teachers: networks in eval mode, on the device of the split, and of which faces each is
            asked, bool `(N,)`; each face has a teacher.
        train: the faces.
        augmentation: makes the views.
        views: how often each face is seen.
        seed: of the views.
        precision: of the computation.
        quiet: shows no progress bar.

    Returns:
        float32 `(N, classes)`, rows sum to 1, on the device of the split.
    """
    device = train.images.device
    generator, batch = torch.Generator(device).manual_seed(seed), batch_of(device)
    sums = torch.zeros(len(train), len(train.class_names), device=device)
    with tqdm(total=views * len(train), unit="image", desc="teaching", disable=quiet) as progress:
        for _ in range(views):
            for rows in torch.arange(len(train)).split(batch):
                seen = augmentation(train.images[rows], generator)
                for teacher, asked in teachers:
                    of = asked[rows]
                    if of.any():
                        with autocast(device, precision):
                            sums[rows[of]] += teacher(seen[of]).float().softmax(1)
                progress.update(len(rows))
    counts = sum(asked.long() for _, asked in teachers)
    return sums / (views * counts.to(device))[:, None]


def asked_of(content: dict, path: Path, train: Split) -> torch.Tensor:
    """Returns of which faces a teacher is asked: bool `(N,)`, those that it left out, or all.

    Args:
        content: of the weights file.
        path: of the same, for errors.
        train: the faces.

    Raises:
        UserError: it left out a part of another train split.
    """
    part = content["run"]["recipe"].get("left_out")
    if part is None:
        return torch.ones(len(train), dtype=torch.bool)
    if content["run"]["train_counts"] != train.class_counts().tolist():
        raise UserError(f"{path} left out a part of other faces than the train split's; drop it")
    return rows_of_part(part, len(train))


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Writes the soft labels; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("--data-dir", type=Path, default=cli.DATA_DIR, help="of the train split")
    parser.add_argument(
        "--results-dir", type=Path, default=cli.RESULTS_DIR, help="where the soft labels go"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="the teachers (default: advanced_model.pth in --results-dir)",
    )
    parser.add_argument(
        "--views", type=cli.positive(int), default=VIEWS, help="how often a teacher sees each face"
    )
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the views")
    parser.add_argument("--device", choices=cli.DEVICES, default="auto", help="where to compute")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args(argv)
    require_writable(args.results_dir)
    device = choose_device(args.device)
    train = load_split(args.data_dir, "train").to(device)
    paths = args.weights or [args.results_dir / "advanced_model.pth"]
    teachers, augmentations = [], []
    for path in paths:
        model, content = load_model(path, "advanced", CNN)
        if tuple(content["class_names"]) != train.class_names:
            raise UserError(f"{path} tells other classes apart than {args.data_dir}; leave it out")
        asked = asked_of(content, path, train)
        teachers.append((model.to(device, memory_format=torch.channels_last), asked))
        augmentations.append(content["run"]["recipe"]["augmentation"] or {})
    alone = ~torch.stack([asked for _, asked in teachers]).any(0)
    if alone.any():
        raise UserError(
            f"{alone.sum():,} training faces lie in no part that these teachers left out; "
            "add to --weights those of the other parts: python advanced_network.py --leave-out K/N"
        )
    precision = choose_precision("auto", device)
    augmentation = Augmentation(**augmentations[0])
    probs = mean_probs(teachers, train, augmentation, args.views, args.seed, precision, args.quiet)
    path = distillation.soft_labels_path(args.results_dir)
    distillation.save_soft_labels(path, probs, train)
    agree = (probs.argmax(1) == train.labels).float().mean().item()
    print(f"the teachers name {agree:.1%} of {len(train):,} training faces as their labels do")
    following = cli.stage_command("advanced_network.py", args.data_dir, args.results_dir)
    print(f"wrote {path}; next: {following} --preset best --soft-labels {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
