"""CNN: residual blocks of convolution, batch normalisation, ReLU and pooling.

    python advanced_network.py
    python advanced_network.py --targets votes     # trained on the raters' votes
    python advanced_network.py --resume            # after a stop
    python advanced_network.py --evaluate          # report the saved weights, train nothing
    python advanced_network.py --preset quick      # a smaller network, fewer epochs
    python advanced_network.py --preset best       # a larger network, 60 epochs

Trained on votes, `default` reaches 0.885 on test by the raters in an hour on two CPU cores with
bfloat16 instructions, `quick` 0.865 in 5 minutes, `best` 0.892 in 4 hours.

A filter has the same weights at every position: a shape that is learned at one place of the image
is recognised at all places. The first epochs train on images of 32x32 (progressive resizing).
Muon, which makes every update of a filter bank orthogonal, needs fewer epochs than SGD. The presets
are one family: they differ only in width, depth, resolution and epochs. More: docs/recipe.md.
"""

import argparse
import sys

from ferlab import cli, entry
from ferlab.constants import IMAGE_SIZE
from ferlab.files import UserError

PRESETS = {
    "quick": {"epochs": 11, "low_resolution_epochs": 0.3,
              "widths": [32, 64, 128, 192], "blocks": 1, "stem_stride": 2},
    "default": {"epochs": 36, "low_resolution_epochs": 0.5,
                "widths": [64, 128, 256], "blocks": 2, "stem_stride": 2},
    "best": {"epochs": 60, "low_resolution_epochs": 0.5,
             "widths": [48, 96, 192, 288], "blocks": 2, "stem_stride": 1},
}  # fmt: skip
STEM_WIDTH = 16  # channels of the first convolution, at full resolution
MOST_STAGES = 5  # each but the first halves the images, from 24x24 or 16x16 down to one pixel


def parser() -> argparse.ArgumentParser:
    """Returns the script's flags."""
    result = cli.training_parser(__doc__, epochs=36, batch_size=128, lr=0.05, weight_decay=0.05)
    add = result.add_argument_group("network").add_argument
    add("--widths", type=cli.positive(int), nargs="+", metavar="CHANNELS", help="channels by stage")
    add("--blocks", type=cli.positive(int), help="residual blocks in each stage")
    add(
        "--stem-stride",
        type=int,
        choices=(1, 2),
        help="stride of the second convolution; 2 halves the images, 1 takes four times as long",
    )
    add("--dropout", type=cli.fraction, default=0.0, help="dropout before the last layer")
    add(
        "--optimizer",
        choices=("muon", "sgd", "adamw"),
        default="muon",
        help="optimizer; muon: Muon for the filters, SGD for the rest",
    )
    add(
        "--low-resolution-epochs",
        type=cli.fraction,
        metavar="FRACTION",
        help="fraction of the epochs, the first ones, at 32x32",
    )
    result.set_presets(PRESETS, default="default")
    return result


if __name__ == "__main__":
    entry.before_imports(parser())  # torch takes seconds to import

import torch
from torch import nn
from torch.nn import functional as F

from ferlab import stage
from ferlab.data.augmentation import Augmentation


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU beside a shortcut (arXiv 1512.03385).

    Args:
        inputs: channels in.
        outputs: channels out.
        halve: whether average pooling halves height and width first.
    """

    def __init__(self, inputs: int, outputs: int, halve: bool):
        super().__init__()
        self.pool = nn.AvgPool2d(2) if halve else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps `(N, inputs, H, W)` to `(N, outputs, H', W')`, halved if pooled."""
        maps = self.pool(maps)
        new = F.relu(self.norm1(self.conv1(maps)), inplace=True)
        new = self.norm2(self.conv2(new))
        return F.relu(new + self.shortcut(maps), inplace=True)


class CNN(nn.Module):
    """Residual CNN.

    Each image is first standardised to mean 0 and deviation 1, so that the prediction does not
    depend on brightness and contrast.

    Args:
        classes: number of classes.
        widths: channels of the stages; all but the first halve height and width.
        blocks: residual blocks in each stage.
        stem_stride: 2 halves the images in the second convolution, 1 does not.
        dropout: fraction of the features that are zeroed before the last layer in training.
    """

    def __init__(
        self,
        classes: int,
        widths: tuple[int, ...] = (64, 128, 256),
        blocks: int = 2,
        stem_stride: int = 2,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.stem = nn.Sequential(
            nn.InstanceNorm2d(1, eps=0.01),  # eps: keeps the noise of uniform images small
            nn.Conv2d(1, STEM_WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(STEM_WIDTH),
            nn.ReLU(inplace=True),
            nn.Conv2d(STEM_WIDTH, widths[0], 3, stem_stride, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        stages: list[nn.Module] = []
        inputs = widths[0]
        for number, width in enumerate(widths):
            for block in range(blocks):
                stages.append(ResidualBlock(inputs, width, halve=number > 0 and block == 0))
                inputs = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(inputs, classes)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # arXiv 1502.01852
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images `(N, 1, H, W)` to logits `(N, classes)`."""
        return self.head(self.stages(self.stem(images)))


def setup(args: argparse.Namespace) -> stage.Setup:
    """Returns what the flags ask for.

    Raises:
        UserError: more stages than the images can be halved.
    """
    if len(args.widths) > MOST_STAGES:
        raise UserError(f"--widths: images of {IMAGE_SIZE}x{IMAGE_SIZE} allow {MOST_STAGES} stages")
    return stage.Setup(
        name="advanced",
        title="CNN",
        build=CNN,
        config={
            "widths": args.widths,
            "blocks": args.blocks,
            "stem_stride": args.stem_stride,
            "dropout": args.dropout,
        },
        augmentation=Augmentation(
            flip=True, rotation=10, translation=0.1, scale=0.1, brightness=0.1, contrast=0.2
        ),
        recipe={
            "optimizer": args.optimizer,
            "warmup": 0.06,
            "label_smoothing": 0.1,
            "ema_epochs": 1.0,
            "clip": 5.0,
            "low_resolution": 32,
            "low_resolution_fraction": args.low_resolution_epochs,
        },
    )


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    args = parser().parse_args(argv)
    return stage.run(setup(args), args)


if __name__ == "__main__":
    sys.exit(main())
