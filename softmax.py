"""Softmax regression: one linear layer from pixels to classes, the simplest model that learns.

    python softmax.py
    python softmax.py --evaluate --data-dir other_data --results-dir other_results

Attains 0.372 on the test split of the real dataset; trains in 4 s on two CPU cores.

Each class has one weight a pixel; the weights of a class, drawn as a picture, are the template
that the class is recognised by. It knows no shape that may stand elsewhere in the picture.
"""

import argparse
import sys

import torch
from torch import nn

from ferlab import cli, stage
from ferlab.data.augmentation import Augmentation
from ferlab.data.splits import IMAGE_SIZE


class SoftmaxRegression(nn.Module):
    """Multinomial logistic regression on pixels.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int):
        super().__init__()
        self.linear = nn.Linear(IMAGE_SIZE * IMAGE_SIZE, classes)
        nn.init.zeros_(self.linear.weight)  # the loss is convex: no symmetry to break
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images `(N, 1, 48, 48)` to logits `(N, classes)`."""
        return self.linear(images.flatten(1))


def parser() -> argparse.ArgumentParser:
    """Returns the script's flags."""
    return cli.training_parser(
        __doc__, epochs=20, batch_size=256, lr=3e-3, weight_decay=3.0, precision="float32"
    )


def setup(args: argparse.Namespace) -> stage.Setup:
    """Returns what the flags ask for."""
    return stage.Setup(
        name="softmax",
        title="softmax regression",
        build=SoftmaxRegression,
        config={},
        augmentation=Augmentation(flip=True),
        recipe={"optimizer": "adamw", "ema_epochs": 1.0},
    )


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    args = parser().parse_args(argv)
    return stage.run(setup(args), args)


if __name__ == "__main__":
    sys.exit(main())
