"""Transfer learning: a torchvision ResNet pretrained on ImageNet, fine-tuned on faces.

    python transfer_learning.py
    python transfer_learning.py --weights resnet18-f37072fd.pth   # no download
    python transfer_learning.py --from-scratch                    # without ImageNet weights

The filters of a network that classifies a thousand kinds of objects detect edges, textures and
shapes that faces have too. First only a new last layer is trained, on top of the frozen network;
then the whole network, at a lower learning rate, so that the pretrained filters are adapted and not
lost. The first convolution, made for three colours, is converted to one grey channel, and the
images are enlarged, since the network was trained on objects that fill 224x224 pixels.

Without --evaluate, --weights is torchvision's file of the network's ImageNet weights; with it, as
everywhere, a file that this script wrote.
"""

import argparse
import functools
import sys
from pathlib import Path

from ferlab import cli, entry
from ferlab.files import UserError

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2")


def parser() -> argparse.ArgumentParser:
    """Returns the script's flags."""
    result = cli.training_parser(__doc__, epochs=20, batch_size=128, lr=3e-4, weight_decay=0.05)
    result.weights_are_evaluated = False  # in training they are ImageNet's
    add = result.add_argument_group("network").add_argument
    add("--backbone", choices=BACKBONES, default="resnet18", help="torchvision's network")
    add("--from-scratch", action="store_true", help="start from random weights, freeze nothing")
    add(
        "--frozen-epochs",
        type=cli.not_negative(int),
        default=3,
        help="epochs of --epochs, the first ones, in which only the last layer is trained",
    )
    add(
        "--frozen-lr",
        type=cli.positive(float),
        default=3e-3,
        help="peak learning rate in the frozen epochs",
    )
    add(
        "--size",
        type=cli.positive(int),
        default=96,
        help="height and width to which the images are enlarged, pixels",
    )
    return result


if __name__ == "__main__":
    entry.before_imports(parser())  # torch takes seconds to import

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import get_model, get_model_weights

from ferlab import stage
from ferlab.data.augmentation import Augmentation
from ferlab.tensor_files import load_tensors

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of red, green and blue in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


class TransferNetwork(nn.Module):
    """A torchvision ResNet for grey images.

    Args:
        classes: number of classes.
        backbone: torchvision's name of the network.
        size: height and width to which the images are enlarged.
    """

    def __init__(self, classes: int, backbone: str = "resnet18", size: int = 96):
        super().__init__()
        self.size = size
        self.backbone = get_model(backbone)
        first = self.backbone.conv1
        self.backbone.conv1 = nn.Conv2d(
            1, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False
        )
        self.head = nn.Linear(self.backbone.fc.in_features, classes)
        self.backbone.fc = nn.Identity()
        nn.init.kaiming_normal_(self.backbone.conv1.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images `(N, 1, 48, 48)` to logits `(N, classes)`."""
        images = F.interpolate(images, self.size, mode="bilinear", align_corners=False)
        return self.head(self.backbone(images))

    def freeze(self, frozen: bool) -> None:
        """Freezes the backbone, the statistics of its batch norms included, or unfreezes it."""
        self.backbone.requires_grad_(not frozen)
        if frozen:
            self.backbone.eval()

    def take_imagenet(self, weights: dict[str, torch.Tensor]) -> None:
        """Fills the backbone with ImageNet weights, except for their last layer.

        In a grey image the three colours are equal, so the filters of the colours add up, each
        divided by the deviation of its colour; our [-1, 1] is twice as wide as [0, 1]. The means of
        the colours add a constant to each filter's output, which the next batch norm subtracts.

        Args:
            weights: the state dict of torchvision's network of the same name.

        Raises:
            RuntimeError, KeyError: it is of another network.
        """
        filters = weights["conv1.weight"]
        scale = 0.5 / torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
        grey = (filters * scale).sum(1, keepdim=True)
        shift = (0.5 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
        constant = (filters * shift.view(1, 3, 1, 1)).sum((1, 2, 3))
        body = {key: value for key, value in weights.items() if not key.startswith("fc.")}
        body |= {"conv1.weight": grey, "bn1.running_mean": body["bn1.running_mean"] - constant}
        self.backbone.load_state_dict(body)


def imagenet_weights(backbone: str, path: Path | None) -> dict[str, torch.Tensor]:
    """Returns the ImageNet weights of a torchvision network, downloaded or from a file.

    Raises:
        UserError: they cannot be downloaded or read; names both ways to get them.
    """
    if path:
        return load_tensors(path, f"get torchvision's file of {backbone}")
    weights = get_model_weights(backbone).DEFAULT
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the ImageNet weights of {backbone} cannot be downloaded ({error}); "
            f"fetch {weights.url} elsewhere and add --weights FILE, or add --from-scratch"
        ) from error


def build_pretrained(weights: dict[str, torch.Tensor], path: Path | None, **config):
    """Returns a `TransferNetwork` of `config` that starts from ImageNet weights.

    Raises:
        UserError: the weights are of another network.
    """
    network = TransferNetwork(**config)
    try:
        network.take_imagenet(weights)
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a state dict of torchvision's {config['backbone']}; name its network "
            "with --backbone"
        ) from error
    return network


def setup(args: argparse.Namespace) -> stage.Setup:
    """Returns what the flags ask for.

    Raises:
        UserError: the ImageNet weights cannot be had, or the flags contradict each other.
    """
    build = TransferNetwork
    frozen_epochs = 0 if args.from_scratch else args.frozen_epochs
    if not args.evaluate:
        if args.weights and len(args.weights) > 1:
            raise UserError("--weights: training starts from one file of ImageNet weights")
        if args.weights and args.from_scratch:
            raise UserError("--from-scratch starts from no --weights; leave out one of them")
        if frozen_epochs >= args.epochs:
            raise UserError(f"--frozen-epochs {frozen_epochs} leaves none of {args.epochs} epochs")
        if not (args.resume or args.from_scratch):
            path = args.weights[0] if args.weights else None
            weights = imagenet_weights(args.backbone, path)
            build = functools.partial(build_pretrained, weights, path)
    return stage.Setup(
        name="transfer",
        title=f"{args.backbone}, {'from scratch' if args.from_scratch else 'ImageNet'}",
        build=build,
        config={"backbone": args.backbone, "size": args.size},
        augmentation=Augmentation(
            flip=True, rotation=10, translation=0.1, scale=0.1, brightness=0.1, contrast=0.2
        ),
        recipe={
            "optimizer": "adamw",
            "label_smoothing": 0.1,
            "ema_epochs": 1.0,
            "clip": 1.0,
            "frozen_epochs": frozen_epochs,
            "frozen_lr": args.frozen_lr,
        },
    )


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    args = parser().parse_args(argv)
    return stage.run(setup(args), args)


if __name__ == "__main__":
    sys.exit(main())
