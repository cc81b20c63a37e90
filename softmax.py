"""Softmax regression: one linear layer from pixels to classes, the simplest model that is trained.

    python softmax.py
    python softmax.py --targets votes
    python softmax.py --evaluate --data-dir other_data --results-dir other_results

Takes 20 s on two CPU cores and reaches 0.384 on the test split by the labels; trained on votes,
0.523 by the raters.

Each class has one weight for each pixel; the weights of a class, drawn as an image, are the
template with which the class is recognised. A shape is not recognised at another place.
"""

import argparse
import sys

from ferlab import cli, entry


def parser() -> argparse.ArgumentParser:
    """Returns the script's flags."""
    return cli.training_parser(
        __doc__, epochs=20, batch_size=256, lr=3e-3, weight_decay=3.0, precision="float32"
    )


if __name__ == "__main__":
    entry.before_imports(parser())  # torch takes seconds to import

import torch
from torch import nn

from ferlab import stage
from ferlab.constants import IMAGE_SIZE
from ferlab.data.augmentation import Augmentation


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


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    args = parser().parse_args(argv)
    return stage.run(setup(args), args)


if __name__ == "__main__":
    sys.exit(main())
