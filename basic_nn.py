"""MLP: two hidden layers with batch normalisation and dropout.

    python basic_nn.py
    python basic_nn.py --targets votes

Takes 4 minutes on two CPU cores and reaches 0.479 on the test split by the labels; trained on
votes, 0.655 by the raters.

Every hidden unit has a weight for every pixel: a shape that is learned at one place of the image is
not recognised at another. The convolution of the CNN removes this limit.
"""

import argparse
import sys

from ferlab import cli, entry


def parser() -> argparse.ArgumentParser:
    """Returns the script's flags."""
    result = cli.training_parser(__doc__, epochs=50, batch_size=256, lr=1e-3, weight_decay=0.05)
    result.add_argument(
        "--widths",
        type=cli.positive(int),
        nargs="+",
        default=[1024, 512],
        metavar="UNITS",
        help="units of each hidden layer",
    )
    result.add_argument(
        "--dropout", type=cli.fraction, default=0.25, help="dropout after each hidden layer"
    )
    return result


if __name__ == "__main__":
    entry.before_imports(parser())  # torch takes seconds to import

import torch
from torch import nn

from ferlab import stage
from ferlab.constants import IMAGE_SIZE
from ferlab.data.augmentation import Augmentation


class MLP(nn.Module):
    """Multilayer perceptron with hidden layers of linear + batch norm + ReLU + dropout.

    Args:
        classes: number of classes.
        widths: units of the hidden layers.
        dropout: fraction of the hidden units that are zeroed in training.
    """

    def __init__(self, classes: int, widths: tuple[int, ...] = (1024, 512), dropout: float = 0.25):
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        inputs = IMAGE_SIZE * IMAGE_SIZE
        for units in widths:
            layers += [
                nn.Linear(inputs, units, bias=False),  # batch norm adds one
                nn.BatchNorm1d(units),
                nn.ReLU(),
                nn.Dropout(dropout),
            ]
            inputs = units
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images `(N, 1, 48, 48)` to logits `(N, classes)`."""
        return self.layers(images)


def setup(args: argparse.Namespace) -> stage.Setup:
    """Returns what the flags ask for."""
    return stage.Setup(
        name="basic_nn",
        title="MLP",
        build=MLP,
        config={"widths": args.widths, "dropout": args.dropout},
        augmentation=Augmentation(flip=True, translation=0.04),
        recipe={"optimizer": "adamw", "label_smoothing": 0.1, "ema_epochs": 1.0, "clip": 1.0},
    )


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    args = parser().parse_args(argv)
    return stage.run(setup(args), args)


if __name__ == "__main__":
    sys.exit(main())
