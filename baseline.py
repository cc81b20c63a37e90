"""Majority baseline: always answers the most frequent class of the train split.

    python baseline.py

Attains 0.250 on the test split of the real dataset, in a second.

What every accuracy has to be read against: on unequal classes it is right far more often than
one time in seven, and knows nothing.
"""

import sys

import torch
from torch import nn

from ferlab import cli, stage
from ferlab.files import require_writable
from ferlab.training.checkpoint import save_model
from ferlab.training.device import choose_device, describe_machine


class MajorityClass(nn.Module):
    """Predicts each class's share of the train split, whatever the picture.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int):
        super().__init__()
        self.register_buffer("log_shares", torch.zeros(classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images `(N, 1, 48, 48)` to logits `(N, classes)`, the same for all."""
        return self.log_shares.expand(len(images), -1)


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    args = cli.evaluation_parser(__doc__).parse_args(argv)
    require_writable(args.results_dir)
    device = choose_device(args.device)
    name, title = "baseline", "majority class"
    if args.evaluate:
        return stage.report_saved(name, title, MajorityClass, args, device)
    splits = stage.load_splits(args.data_dir, required=("train",))
    train = splits["train"]
    counts = train.class_counts()
    config = {"classes": len(counts)}
    model = MajorityClass(**config)
    model.log_shares.copy_((counts / counts.sum()).log())
    record = {
        "command": stage.command_line(),
        "seed": args.seed,
        "chosen_by": "counting the train split's labels",
        "seconds": 0.0,
        "parameters": 0,
        "precision": "float32",
        "network": config,
        "train_counts": counts.tolist(),
        **describe_machine(device),
    }
    path = args.results_dir / f"{name}_model.pth"
    save_model(path, name, model, config, train.class_names, 1.0, record)
    return stage.report(name, title, [(model, 1.0)], splits, record, args, device)


if __name__ == "__main__":
    sys.exit(main())
