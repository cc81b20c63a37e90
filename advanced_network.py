"""CNN: residual blocks of convolution, batch normalisation, ReLU, pooling and dropout.

    python advanced_network.py
    python advanced_network.py --resume            # after a stop
    python advanced_network.py --evaluate          # report the saved weights, train nothing
    python advanced_network.py --preset quick      # a smaller network, fewer epochs
    python advanced_network.py --preset full       # faces at full resolution, twice the time
    python advanced_network.py --preset best       # the same network in 240 epochs, for a GPU

`best`, the weights in results/, attains 0.718 on the test split of the real dataset; it has 4.4 M
parameters and took five minutes on an H100. The default is for CPUs: 2.8 M parameters, and faces
that are halved before the first block.

A filter is the same wherever it looks, so a smile learned in one place is known in all others.
Most of the time goes into convolutions: the first epochs see the faces at 32x32, and computation is
in bfloat16 where the machine gains from it. Muon, which makes every update of a filter bank
orthogonal, needs fewer epochs than SGD. Against learning by heart, faces are moved, warped and lit
anew, and much of what is learned is what other networks think of them: of the real dataset's faces
that is in results/advanced_soft_labels.pt.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from ferlab import cli, stage
from ferlab.data.augmentation import Augmentation
from ferlab.data.splits import IMAGE_SIZE, load_split
from ferlab.files import UserError
from ferlab.training.distillation import are_of, soft_labels_path

AUGMENTATION = Augmentation(
    flip=True, rotation=10, translation=0.1, scale=0.1, brightness=0.1, contrast=0.2
)
LIGHT = {"light": 0.5, "gamma": 0.4, "sharpness": 0.5, "noise": 0.05}  # times --light
SELF_START = 0.3  # share of the epochs before averaged weights know enough to teach
DEFAULT = {
    "epochs": 36,
    "batch_size": 256,
    "optimizer": "muon",
    "muon_steps": 5,
    "lr": 0.05,
    "weight_decay": 0.05,
    "decay": "cosine",
    "ema_epochs": 1.0,
    "widths": [64, 128, 256],
    "stem_width": 0,
    "stem_stride": 2,
    "blocks": 2,
    "pooling": "avg",
    "init": "dirac",
    "local_contrast": 9,
    "dropout": 0.0,
    "drop_path": 0.0,
    "head_dropout": 0.3,
    "mixup": 0.0,
    "cutmix": 0.0,
    "augment_strength": 1.0,
    "erasing": 0.0,
    "warp": 0.1,
    "light": 1.0,
    "small_share": 0.5,
    "still_share": 0.0,
    "soft_labels": "auto",
    "soft_share": 0.7,
    "self_share": 0.0,
}
FULL = DEFAULT | {"epochs": 28, "widths": [48, 96, 192, 288], "stem_stride": 1}
PRESETS = {
    "default": DEFAULT,
    "quick": DEFAULT
    | {
        "epochs": 11,
        "batch_size": 128,
        "muon_steps": 3,
        "decay": "linear",
        "ema_epochs": 0.5,
        "widths": [32, 64, 128, 192],
        "stem_width": 16,
        "blocks": 1,
        "pooling": "max",
        "local_contrast": 0,
        "head_dropout": 0.0,
        "augment_strength": 0.4,
        "warp": 0.0,
        "light": 0.0,
        "small_share": 0.3,
        "still_share": 0.3,
    },
    "full": FULL,
    "best": FULL | {"epochs": 240, "init": "kaiming", "drop_path": 0.1, "erasing": 0.2},
}
CONTRAST_EPS = 0.01  # added to a face's variance: a flat picture's noise stays small
POOLING = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
SOFT_LABELS = soft_labels_path(cli.RESULTS_DIR)  # what --soft-labels auto looks at
MOST_STAGES = 5  # each but the first halves the faces, from 24x24 or 16x16 down to one pixel


class LocalContrast(nn.Module):
    """Puts beside each face what stands out from its surroundings, at mean 0 and deviation 1.

    Of each pixel the mean of the square around it is taken away, so that shades and half-lit faces
    matter less (subtractive normalisation: Jarrett et al. 2009, "What is the best multi-stage
    architecture for object recognition?", with a plain mean).

    Args:
        side: of the square, in pixels, odd.
    """

    def __init__(self, side: int):
        super().__init__()
        self.pool = nn.AvgPool2d(side, stride=1, padding=side // 2)
        self.norm = nn.InstanceNorm2d(1, eps=CONTRAST_EPS)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Maps `(N, 1, H, W)` to `(N, 2, H, W)`."""
        return torch.cat([faces, self.norm(faces - self.mean(faces))], dim=1)

    def mean(self, faces: torch.Tensor) -> torch.Tensor:
        """Returns the means `(N, 1, H, W)`: of the part of each square that lies in the face.

        Padding is divided out here, by the mean of a face of ones: OpenCV's reader of ONNX would
        not leave it out, and knows no `ones_like`.
        """
        return self.pool(faces) / self.pool(0 * faces + 1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU beside a shortcut (arXiv 1512.03385).

    Args:
        inputs: channels in.
        outputs: channels out.
        pooling: halves height and width first, by "max" or "avg"; None for not.
        dropout: share of channels silenced in training.
        drop_path: share of faces for which training leaves the convolutions out (stochastic
            depth, arXiv 1603.09382).
    """

    def __init__(
        self, inputs: int, outputs: int, pooling: str | None, dropout: float, drop_path: float
    ):
        super().__init__()
        self.drop_path = drop_path
        self.pool = POOLING[pooling](2) if pooling else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Identity()
            if inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        )
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps `(N, inputs, H, W)` to `(N, outputs, H', W')`, halved if pooled."""
        maps = self.pool(maps)
        new = F.relu(self.norm1(self.conv1(maps)), inplace=True)
        new = self.norm2(self.conv2(new))
        if self.training and self.drop_path:
            new = new * F.dropout(new.new_ones(len(new), 1, 1, 1), self.drop_path)
        return self.dropout(F.relu(new + self.shortcut(maps), inplace=True))


class CNN(nn.Module):
    """Residual CNN.

    Each face is first brought to mean 0 and deviation 1, so that light and contrast need not be
    learned. The stem halves it, by one convolution, or by two, of which the first sees the whole
    face: at 48x48 a step spends most of its time on layers that see little more than edges. Who has
    the time sees more without halving.

    Args:
        classes: number of classes.
        widths: channels of the stages; all but the first halve height and width.
        stem_width: channels of the convolution before the faces are halved; 0 for none.
        stem_stride: 2 halves the faces in the stem, 1 does not.
        blocks: residual blocks a stage.
        pooling: what halves the maps between stages, "max" or "avg".
        init: weights to begin with: "kaiming", at random (arXiv 1502.01852), or "dirac", where each
            3x3 convolution of a block also hands its inputs on as they are: as many of its filters
            as it has inputs pass one channel each, the others are random.
        local_contrast: side of the squares whose mean is taken away for a second look at each face
            (see `LocalContrast`); 0 for no such look.
        dropout: share of channels silenced after each block.
        drop_path: share of faces that skip the last block's convolutions in training; from none in
            the first block on, it rises in equal steps.
        head_dropout: share of features silenced before the last layer.
    """

    def __init__(
        self,
        classes: int,
        widths: tuple[int, ...] = (64, 128, 256),
        stem_width: int = 0,
        stem_stride: int = 2,
        blocks: int = 2,
        pooling: str = "max",
        init: str = "kaiming",
        local_contrast: int = 0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        head_dropout: float = 0.2,
    ):
        super().__init__()
        looks = 2 if local_contrast else 1
        # inputs, outputs, side of the filters, stride
        layers = [(looks, widths[0], 5, stem_stride)]
        if stem_width:
            layers = [(looks, stem_width, 3, 1), (stem_width, widths[0], 3, stem_stride)]
        self.stem = nn.Sequential(nn.InstanceNorm2d(1, eps=CONTRAST_EPS))
        if local_contrast:
            self.stem.append(LocalContrast(local_contrast))
        for inputs, outputs, side, stride in layers:
            self.stem += nn.Sequential(
                nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            )
        stages: list[nn.Module] = []
        inputs = widths[0]
        rise = drop_path / max(1, len(widths) * blocks - 1)
        for number, width in enumerate(widths):
            for block in range(blocks):
                halves = pooling if number > 0 and block == 0 else None
                stages.append(ResidualBlock(inputs, width, halves, dropout, rise * len(stages)))
                inputs = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(head_dropout),
            nn.Linear(inputs, classes),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if init == "dirac":
            for block in self.stages:
                for conv in (block.conv1, block.conv2):
                    nn.init.dirac_(conv.weight[: conv.in_channels])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images `(N, 1, 48, 48)` to logits `(N, classes)`."""
        return self.head(self.stages(self.stem(images)))


def parser() -> argparse.ArgumentParser:
    """Returns the script's flags."""
    shared = ("epochs", "batch_size", "lr", "weight_decay")
    result = cli.training_parser(__doc__, **{key: DEFAULT[key] for key in shared})
    result.add_argument(
        "--decay", choices=("cosine", "linear", "none"), help="how the learning rate falls"
    )
    result.add_argument(
        "--ema-epochs",
        type=cli.not_negative(float),
        metavar="EPOCHS",
        help="over which the weights are averaged, 0 for not",
    )
    result.add_argument(
        "--widths",
        type=cli.positive(int),
        nargs="+",
        metavar="CHANNELS",
        help="channels of each stage",
    )
    result.add_argument(
        "--stem-width",
        type=cli.not_negative(int),
        metavar="CHANNELS",
        help="of a first look at full resolution, 0 for none",
    )
    result.add_argument(
        "--stem-stride",
        type=int,
        choices=(1, 2),
        help="2 halves the faces first, 1 costs four times",
    )
    result.add_argument("--blocks", type=cli.positive(int), help="residual blocks a stage")
    result.add_argument("--pooling", choices=POOLING, help="what halves the maps between stages")
    result.add_argument(
        "--init",
        choices=("kaiming", "dirac"),
        help="weights to begin with: at random, or dirac: blocks that hand on what comes in",
    )
    result.add_argument(
        "--local-contrast",
        type=cli.not_negative(int),
        metavar="PIXELS",
        help="odd side of the squares whose mean is taken away for a second look, 0 for none",
    )
    result.add_argument("--dropout", type=cli.share, help="of channels, after each block")
    result.add_argument(
        "--drop-path", type=cli.share, help="of faces that skip the last block in training"
    )
    result.add_argument("--head-dropout", type=cli.share, help="of features, before the last layer")
    result.add_argument(
        "--optimizer", choices=("sgd", "adamw", "muon"), help="muon: for the filters, with SGD"
    )
    result.add_argument(
        "--muon-steps",
        type=cli.positive(int),
        metavar="STEPS",
        help="of Newton-Schulz, which make its updates orthogonal",
    )
    result.add_argument(
        "--mixup", type=cli.not_negative(float), help="mixes faces in pairs, 0 for none"
    )
    result.add_argument(
        "--cutmix", type=cli.not_negative(float), help="pastes a part of another face, 0 for none"
    )
    result.add_argument("--erasing", type=cli.share, help="of the training faces, lose a rectangle")
    result.add_argument("--warp", type=cli.share, help="how far faces are sheared and slanted")
    result.add_argument(
        "--light", type=cli.not_negative(float), help="strength of new light, focus and noise"
    )
    result.add_argument(
        "--small-share", type=cli.share, help="of the epochs, the first ones, at 32x32"
    )
    result.add_argument(
        "--still-share",
        type=cli.share,
        help="of the epochs, the last ones, in which faces are mirrored, but not moved",
    )
    result.add_argument(
        "--soft-labels",
        metavar="FILE",
        help="of soft_labels.py, to learn from too, or none; "
        f"auto: {SOFT_LABELS}, if it is of these training faces",
    )
    result.add_argument("--soft-share", type=cli.share, help="of --soft-labels in what is learned")
    result.add_argument(
        "--leave-out",
        type=cli.part,
        metavar="K/N",
        help="part of the training faces not to learn, 2/5 is the second of five: of them "
        "soft_labels.py then asks this network",
    )
    result.add_argument(
        "--self-share", type=cli.share, help="of what the averaged weights think, in the same"
    )
    result.set_presets(PRESETS)
    return result


def chosen_soft_labels(flag: str, data_dir: Path) -> str | None:
    """Returns the file that `--soft-labels` asks for, None for none.

    Raises:
        UserError: by "auto", where no train split, or a damaged one, is in `data_dir`.
    """
    if flag == "auto":
        return str(SOFT_LABELS) if are_of(SOFT_LABELS, load_split(data_dir, "train")) else None
    return None if flag == "none" else flag


def setup(args: argparse.Namespace) -> stage.Setup:
    """Returns what the flags ask for.

    Raises:
        UserError: more stages than the faces can be halved, or squares without a middle; or as
            `chosen_soft_labels` does.
    """
    if args.local_contrast and args.local_contrast % 2 == 0:
        raise UserError(f"--local-contrast {args.local_contrast}: the side must be odd, or 0")
    if len(args.widths) > MOST_STAGES:
        raise UserError(f"--widths: a {IMAGE_SIZE}x{IMAGE_SIZE} face allows {MOST_STAGES} stages")
    soft_labels = None if args.evaluate else chosen_soft_labels(args.soft_labels, args.data_dir)
    return stage.Setup(
        name="advanced",
        title="CNN",
        build=CNN,
        config={
            "widths": args.widths,
            "stem_width": args.stem_width,
            "stem_stride": args.stem_stride,
            "blocks": args.blocks,
            "pooling": args.pooling,
            "init": args.init,
            "local_contrast": args.local_contrast,
            "dropout": args.dropout,
            "drop_path": args.drop_path,
            "head_dropout": args.head_dropout,
        },
        augmentation=replace(
            AUGMENTATION,
            erasing=args.erasing,
            warp=args.warp,
            **{kind: args.light * most for kind, most in LIGHT.items()},
        ),
        recipe={
            "optimizer": args.optimizer,
            "muon_steps": args.muon_steps,
            "decay": args.decay,
            "label_smoothing": 0.1,
            "ema_epochs": args.ema_epochs,
            "clip": 5.0,
            "warmup": 0.06,
            "mixup": args.mixup,
            "cutmix": args.cutmix,
            "soft_labels": soft_labels,
            "soft_share": args.soft_share if soft_labels else 0.0,
            "left_out": args.leave_out,
            "self_share": args.self_share,
            "self_start": SELF_START,
            "small_share": args.small_share,
            "small_size": 32,
            "still_share": args.still_share,
        },
    )


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    args = parser().parse_args(argv)
    return stage.run(setup(args), args)


if __name__ == "__main__":
    sys.exit(main())
