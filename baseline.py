"""Majority baseline: predicts the most frequent class of the train split for every image.

    python baseline.py
    python baseline.py --targets votes

Takes a few seconds and reaches 0.249 on the test split by the labels; with votes, 0.373 by the
raters. Every accuracy has to be compared with this one: with unequal classes it is far above one in
seven, although the image is not used.
"""

import argparse
import sys

from ferlab import cli, entry


def parser() -> argparse.ArgumentParser:
    """Returns the script's flags."""
    return cli.evaluation_parser(__doc__)


if __name__ == "__main__":
    entry.before_imports(parser())  # torch takes seconds to import

import torch
from torch import nn

from ferlab import stage
from ferlab.data.augmentation import Augmentation
from ferlab.files import require_writable
from ferlab.training.device import choose_device, describe_machine
from ferlab.training.recipe import require_targets, target_distribution


class MajorityClass(nn.Module):
    """Predicts each class's fraction of the train split, whatever the image.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int):
        super().__init__()
        self.register_buffer("log_fractions", torch.zeros(classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images `(N, 1, 48, 48)` to logits `(N, classes)`, the same for all."""
        return self.log_fractions.expand(images.shape[0], -1)  # len() is a constant in exports


def setup(args: argparse.Namespace) -> stage.Setup:
    """Returns what the flags ask for."""
    return stage.Setup("baseline", "majority class", MajorityClass, {}, Augmentation(), {})


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    args = parser().parse_args(argv)
    require_writable(args.results_dir)
    device = choose_device(args.device)
    own = setup(args)
    if args.evaluate:
        return stage.report_saved(own, args, device)
    splits = stage.load_splits(args.data_dir, required=("train",))
    train = splits["train"]
    require_targets(train, args.targets)
    targets = target_distribution(train, args.targets)
    fractions = targets[targets.sum(1) > 0].mean(0)
    config = {"classes": len(fractions)}
    model = MajorityClass(**config)
    smallest = torch.finfo(fractions.dtype).tiny  # for a class that train lacks: no log of 0
    model.log_fractions.copy_(fractions.clamp(min=smallest).log())
    record = {
        "title": own.title,
        "command": stage.command_line(),
        "targets": args.targets,
        "seed": args.seed,
        "chosen_by": f"counting the {args.targets} of the train split",
        "seconds": 0.0,
        "parameters": 0,
        "precision": "float32",
        "network": config,
        "train_counts": train.counts(),
        **describe_machine(device),
    }
    stage.write_weights(args.results_dir, own.name, model, config, train.class_names, record)
    return stage.report(own.name, own.title, [(model, 1.0)], splits, record, args, device)


if __name__ == "__main__":
    sys.exit(main())
