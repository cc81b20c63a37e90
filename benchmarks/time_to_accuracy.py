"""Time to an accuracy on val: a preset of advanced_network.py against a plain PyTorch recipe.

    python benchmarks/time_to_accuracy.py
    python benchmarks/time_to_accuracy.py --targets votes --target 0.85
    python benchmarks/time_to_accuracy.py --preset default --target 0.68

The preset is trained until it reaches the target. Then the same network is trained on the same
targets for as many seconds (times --patience) the way tutorials write it: float32, images in
memory, torchvision's transforms on the CPU, a DataLoader with two workers, SGD with a cosine
schedule that ends with the time. Only training is timed, not validation. The fraction of the matrix
product is the rate of the network's own operations, forward and backward, over the rate of a large
matrix product in the same number format, measured in the same run.
"""

import argparse
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from tqdm import tqdm

import advanced_network
from ferlab import cli, entry, stage
from ferlab.constants import IMAGE_SIZE
from ferlab.data.splits import Split, gray_levels
from ferlab.training.device import choose_device, choose_precision, describe_machine, precision_name
from ferlab.training.prediction import predict_logits
from ferlab.training.recipe import expected_class, rows_and_targets
from ferlab.training.trainer import Trainer


def product_rate(device: torch.device, dtype: torch.dtype, side: int = 4096) -> float:
    """Returns the FLOP a second of a square matrix product, best of two seconds and two or more."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds: list[float] = []
    while len(seconds) < 2 or sum(seconds) < 2:
        start = time.perf_counter()
        (left @ right)[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def step_flop(model: nn.Module, size: int) -> float:
    """Returns the FLOP of a training step for each image, forward and backward, at that size."""
    model = model.cpu()
    images = torch.zeros(2, 1, size, size)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return counter.get_total_flops() / len(images)


def run_preset(flags: argparse.Namespace, splits: dict[str, Split], target: float) -> dict:
    """Trains a preset until it reaches the target; returns what was measured."""
    device = choose_device(flags.device)
    setup = advanced_network.setup(flags)
    classes = len(splits["train"].class_names)
    fresh = stage.new_network(setup, classes, flags.seed, device)
    flop = {size: step_flop(fresh, size) for size in (setup.recipe["low_resolution"], IMAGE_SIZE)}
    fresh = stage.new_network(setup, classes, flags.seed, device)
    recipe = stage.recipe_of(setup, flags, precision_name(flags.precision, device))
    trainer = Trainer(fresh, splits["train"].to(device), recipe)
    val = splits["val"].to(device)
    done = {"seconds": 0.0, "images": 0, "flop": 0.0, "accuracy": 0.0}
    while len(trainer.history) < recipe.epochs and done["accuracy"] < target:
        size = trainer.size or IMAGE_SIZE
        row = trainer.epoch(val, flags.quiet)
        seen = trainer.steps_an_epoch * trainer.batch_size
        done["seconds"] += row["train_seconds"]
        done["images"] += seen
        done["flop"] += seen * flop[size]
        done["accuracy"] = max(done["accuracy"], trainer.best["val_accuracy"])
        print(f"  epoch {row['epoch']}: {done['seconds']:.0f} s, val {row['val_accuracy']:.4f}")
    return done | {"precision": recipe.precision, "epochs": len(trainer.history)}


class PlainImages(Dataset):
    """Images in memory, each augmented by torchvision when it is taken, and its target.

    Args:
        split: the train split.
        targets: float `(N, classes)`, distributions.
    """

    def __init__(self, split: Split, targets: torch.Tensor):
        self.images, self.targets = gray_levels(split.images), targets
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomAffine(10, translate=(0.1, 0.1), scale=(0.9, 1.1)),
                transforms.ConvertImageDtype(torch.float32),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transform(self.images[index]), self.targets[index]


def run_plain(flags: argparse.Namespace, splits: dict[str, Split], seconds: float) -> dict:
    """Trains the preset's network the plain way for that long; returns what was measured."""
    device = choose_device(flags.device)
    setup = advanced_network.setup(flags)
    rows, targets = rows_and_targets(splits["train"], flags.targets)
    train = splits["train"].take(rows)
    model = stage.new_network(setup, len(train.class_names), flags.seed, device)
    flop = step_flop(model, IMAGE_SIZE)
    model = model.to(device)
    images = PlainImages(train, targets[rows])
    loader = DataLoader(images, batch_size=128, shuffle=True, num_workers=2)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    model.train()
    images_seen, start = 0, time.perf_counter()
    with tqdm(total=round(seconds), unit="s", leave=False, disable=flags.quiet) as progress:
        while (elapsed := time.perf_counter() - start) < seconds:
            for batch, target in loader:
                elapsed = time.perf_counter() - start
                if elapsed >= seconds:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = 0.05 * (1 + math.cos(math.pi * elapsed / seconds))
                loss = F.cross_entropy(model(batch.to(device)), target.to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                images_seen += len(batch)
                progress.update(round(elapsed) - progress.n)
    val = splits["val"]
    expected = expected_class(val, flags.targets)
    correct = predict_logits(model, val.images.to(device)).cpu().argmax(1) == expected
    return {
        "seconds": elapsed,
        "images": images_seen,
        "flop": images_seen * flop,
        "accuracy": correct[expected >= 0].float().mean().item(),
        "precision": "float32",
        "epochs": images_seen / len(images),
    }


def parser() -> argparse.ArgumentParser:
    """Returns the flags: those of advanced_network.py, and the benchmark's own."""
    result = advanced_network.parser()
    result.description = __doc__
    add = result.add_argument_group("benchmark").add_argument
    add("--target", type=cli.fraction, default=0.65, help="accuracy on val to reach, by --targets")
    add(
        "--patience",
        type=cli.positive(float),
        default=1.0,
        help="time of the plain recipe, as a multiple of the preset's",
    )
    result.set_defaults(preset="quick", **advanced_network.PRESETS["quick"])
    return result


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    flags = parser().parse_args(argv)
    splits = stage.load_splits(flags.data_dir, ("train", "val"), wanted=("train", "val"))
    device = choose_device(flags.device)
    formats = dict.fromkeys((torch.float32, choose_precision(flags.precision, device)))
    rates = {dtype: product_rate(device, dtype) for dtype in formats}
    print(f"{describe_machine(device)['device_name']}, matrix product:", end=" ")
    print(", ".join(f"{rate / 1e9:,.0f} GFLOP/s {str(d)[6:]}" for d, rate in rates.items()))
    sides = {f"preset {flags.preset}": run_preset(flags, splits, flags.target)}
    seconds = sides[f"preset {flags.preset}"]["seconds"]
    sides["plain recipe"] = run_plain(flags, splits, seconds * flags.patience)
    heads = ("seconds", "epochs", "images/s", "GFLOP/s", "fraction")
    print(f"{'':16}{'val':>8}" + "".join(f"{head:>10}" for head in heads))
    for name, side in sides.items():
        rate = side["flop"] / side["seconds"]
        fraction = rate / rates[getattr(torch, side["precision"])]
        print(
            f"{name:16}{side['accuracy']:8.4f}{side['seconds']:10.0f}{side['epochs']:10.1f}"
            f"{side['images'] / side['seconds']:10,.0f}{rate / 1e9:10,.0f}{fraction:10.0%}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
