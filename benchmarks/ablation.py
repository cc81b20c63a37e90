"""What each ingredient of the CNN's recipe gives on val: a short recipe, one change at a time.

    python benchmarks/ablation.py
    python benchmarks/ablation.py --train-faces 6000 --results-dir results/ablation_few \\
        --epochs 30 --decay linear --small-share 0.5 --batch-size 128

Every variant trains from the same seed for the same number of epochs, and is judged by its last
epoch, so that nothing is chosen. `±` is the standard error of the difference to the recipe itself,
from the faces where only one of the two is right; the other seeds show how far chance alone goes.
`rarest` is the recall of the rarest class, disgust. Writes `ablation.txt` and `ablation.json` to
`--results-dir` after each variant, those that are there are not trained again, and several runs may
add to one folder, with other `--only`. `seconds` are told of the variants that the machine of the
recipe itself trained. Never looks at test.

A short recipe hardly overfits. `--train-faces` trains on a few faces only, so that a network soon
knows them by heart, as it does all of them in a long recipe, and judges by the faces left out too.
Soft labels are then of two networks that learn those few faces by the recipe itself; otherwise they
are the repository's, of a network that has seen all.
"""

import argparse
import json
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch.nn import functional as F

import advanced_network
from ferlab import cli, stage
from ferlab.data.augmentation import Augmentation
from ferlab.data.splits import Split
from ferlab.evaluation.reports import wrapped
from ferlab.files import UserError, write_text
from ferlab.training.device import choose_device, choose_precision, describe_machine, precision_name
from ferlab.training.distillation import save_soft_labels, soft_labels_path
from ferlab.training.prediction import predict_views
from ferlab.training.trainer import Trainer
from soft_labels import VIEWS, mean_probs

SOFT_LABELS = "--soft-labels {soft_labels}"
TEACHER_SEEDS = (3, 4)  # of none of the variants
NEW = {
    "average pooling": "--pooling avg",
    "local contrast": "--local-contrast 9",
    "warping": "--warp 0.1",
    "new light": "--light 1",
    "self-distillation": "--self-share 0.5",
}
FIVE = " ".join(NEW.values())
TAUGHT = f"{FIVE} {SOFT_LABELS} --self-share 0"
RECIPE = (
    "--preset quick --soft-labels none --muon-steps 5 --batch-size 256 --decay cosine "
    "--ema-epochs 1 --widths 32 64 128 256 --stem-width 0 --head-dropout 0.2 --epochs 8 "
    "--small-share 0.75 --augment-strength 1 --init kaiming --still-share 0"
)
FEW_SEED = 0  # which faces --train-faces takes
ITSELF = "the recipe itself"
ONE_VIEW = "one view, not two"
VARIANTS: dict[str, tuple[str, dict]] = {  # flags, and fields of the recipe that no flag sets
    ITSELF: ("", {}),
    "seed 1": ("--seed 1", {}),
    "seed 2": ("--seed 2", {}),
    "SGD, not Muon": ("--optimizer sgd --lr 0.1 --weight-decay 5e-4", {}),
    "AdamW, not Muon": ("--optimizer adamw --lr 3e-3 --weight-decay 0.05", {}),
    "no smoothing of labels": ("", {"label_smoothing": 0.0}),
    "no averaging of weights": ("--ema-epochs 0", {}),
    "three Newton-Schulz steps": ("--muon-steps 3", {}),
    "linear fall of the learning rate": ("--decay linear", {}),
    "no fall of the learning rate": ("--decay none", {}),
    "mirroring alone": ("--augment-strength 0", {}),
    "erasing of 0.25": ("--erasing 0.25", {}),
    "mixup of 0.2": ("--mixup 0.2", {}),
    "cutmix of 1": ("--cutmix 1", {}),
    "soft labels": (SOFT_LABELS, {}),
    "soft labels, no smoothing": (SOFT_LABELS, {"label_smoothing": 0.0}),
    "soft labels, weight 0.9": (f"{SOFT_LABELS} --soft-share 0.9", {}),
    "48x48 from the start": ("--small-share 0", {}),
    "a first look at full resolution": ("--stem-width 16", {}),
    "stages 64, 128, 256": ("--widths 64 128 256", {}),
    "two blocks a stage": ("--blocks 2", {}),
    "batches of 128": ("--batch-size 128", {}),
    "balanced class weights": ("--class-weights balanced", {}),
    "oversampling": ("--oversample", {}),
    "four times the weight decay": ("--weight-decay 0.2", {}),
    "augmentation two fifths as wide": ("--augment-strength 0.4", {}),
    "augmentation half as wide again": ("--augment-strength 1.5", {}),
    "still faces in the last quarter": ("--still-share 0.25", {}),
    "dropout of 0.1": ("--dropout 0.1", {}),
    "no dropout before the last layer": ("--head-dropout 0", {}),
    "weights averaged over half an epoch": ("--ema-epochs 0.5", {}),
    "blocks that hand on what comes in": ("--init dirac", {}),
    "192 channels at last": ("--widths 32 64 128 192", {}),
    **{name: (flags, {}) for name, flags in NEW.items()},
    "these five": (FIVE, {}),
    **{
        f"these five without {name}": (
            " ".join(flags for flags in NEW.values() if flags != left_out),
            {},
        )
        for name, left_out in NEW.items()
    },
    "these five, faces not halved": (f"{FIVE} --stem-stride 1", {}),
    "these five and soft labels": (f"{FIVE} {SOFT_LABELS}", {}),
    "the same, no self-distillation": (TAUGHT, {}),
    "taught, stochastic depth of 0.1": (f"{TAUGHT} --drop-path 0.1", {}),
    "taught, twice the epochs": (f"{TAUGHT} --epochs {{twice}}", {}),
}


def few(train: Split, val: Split, count: int) -> tuple[Split, Split]:
    """Returns `count` faces of train, and val together with the other faces of train.

    Raises:
        UserError: train has no more than `count`.
    """
    if count >= len(train):
        raise UserError(f"--train-faces {count}: train has {len(train):,}, and some are left out")
    drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(FEW_SEED))
    taken, others = drawn[:count], drawn[count:]
    judged = Split(
        torch.cat([val.images, train.images[others]]),
        torch.cat([val.labels, train.labels[others]]),
        val.class_names,
    )
    return train.take(taken), judged


def judge(logits: torch.Tensor, labels: torch.Tensor) -> dict:
    """Returns what is kept of predictions `(N, classes)`: two numbers, and which are right."""
    preds, labels = logits.argmax(1).numpy(), labels.numpy()
    right = preds == labels
    rarest = labels == np.bincount(labels).argmin()
    return {
        "macro_f1": f1_score(labels, preds, average="macro"),
        "rarest": right[rarest].mean(),
        "right": np.packbits(right).tobytes().hex(),
    }


def train(flags: argparse.Namespace, changed: dict, splits: dict[str, Split]) -> Trainer:
    """Trains what `flags` and the `changed` fields of the recipe ask for, to the last epoch."""
    device = choose_device(flags.device)
    setup = advanced_network.setup(flags)
    setup = replace(setup, recipe=setup.recipe | changed)
    model = stage.new_network(setup, len(splits["train"].class_names), flags.seed, device)
    recipe = stage.recipe_of(setup, flags, precision_name(flags.precision, device))
    trainer = Trainer(model, splits["train"].to(device), recipe)
    val = splits["val"].to(device)
    for _ in range(recipe.epochs):
        trainer.epoch(val, flags.quiet)
    return trainer


def teach(flags: argparse.Namespace, splits: dict[str, Split], path: Path) -> None:
    """Writes the soft labels of networks that differ from what `flags` ask for in their seed."""
    teachers, all_faces = [], torch.ones(len(splits["train"]), dtype=torch.bool)
    for seed in TEACHER_SEEDS:
        trainer = train(argparse.Namespace(**{**vars(flags), "seed": seed}), {}, splits)
        teachers.append((trainer.ema.module.eval(), all_faces))
    precision = choose_precision(flags.precision, trainer.device)
    augmentation = trainer.augment or Augmentation()
    faces = splits["train"].to(trainer.device)
    probs = mean_probs(teachers, faces, augmentation, VIEWS, flags.seed, precision, flags.quiet)
    save_soft_labels(path, probs, faces)


def results_of(trainer: Trainer, judged: Split) -> dict:
    """Returns the last epoch's numbers and how the network does on `judged`."""
    judged = judged.to(trainer.device)
    plain, mirrored = predict_views(trainer.ema.module, judged.images)
    return {
        "seconds": sum(row["train_seconds"] for row in trainer.history),
        "train_loss": trainer.history[-1]["train_loss"],
        "loss": F.cross_entropy((plain + mirrored) / 2, judged.labels).item(),
        "two_views": judge((plain + mirrored).cpu(), judged.labels.cpu()),
        "one_view": judge(plain.cpu(), judged.labels.cpu()),
        "recipe": asdict(trainer.recipe),
    }


def difference(right: np.ndarray, base: np.ndarray) -> tuple[float, float]:
    """Returns the difference of two accuracies on the same faces and its standard error.

    Args:
        right: bool `(N,)`, where the variant is right.
        base: the same of what it is compared with.
    """
    each = right.astype(float) - base
    return each.mean(), each.std() / len(each) ** 0.5


def machine_of(run: dict) -> str:
    """Returns where a variant was trained."""
    return f"{run['machine']['device_name']}, {run['machine']['threads']} threads"


def table(done: dict[str, dict], count: int) -> str:
    """Returns the results on `count` faces as text.

    The time of a variant that another machine trained than the recipe itself is left out.
    """

    def right(run: dict, views: str) -> np.ndarray:
        packed = np.frombuffer(bytes.fromhex(run[views]["right"]), np.uint8)
        return np.unpackbits(packed, count=count).astype(bool)

    base = right(done[ITSELF], "two_views")
    rows = [(name, done[name], "two_views") for name in VARIANTS if name in done]
    rows.append((ONE_VIEW, done[ITSELF], "one_view"))
    heads = ("loss", "macro F1", "rarest", "seconds")
    lines = [f"{'':36}{'accuracy':>8}{'change':>16}" + "".join(f"{head:>10}" for head in heads)]
    for name, run, views in rows:
        correct = right(run, views)
        change, error = difference(correct, base)
        told = "" if name == ITSELF else f"{change:+.3f} ± {error:.3f}"
        same = machine_of(run) == machine_of(done[ITSELF])
        seconds = f"{run['seconds']:.0f}" if same else ""
        loss = "" if name == ONE_VIEW else f"{run['loss']:.3f}"
        lines.append(
            f"{name:36}{correct.mean():8.3f}{told:>16}{loss:>10}"
            f"{run[views]['macro_f1']:10.3f}{run[views]['rarest']:10.2f}{seconds:>10}".rstrip()
        )
    return "\n".join(lines)


def stored(path: Path, about: dict) -> dict[str, dict]:
    """Returns the variants that are in `path` already.

    Raises:
        UserError: they are not of the recipe, the network and the faces in `about`.
    """
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    for key, value in about.items():
        if content.get(key) != value:
            raise UserError(
                f"{path} is of other {key}; delete its folder, or add another --results-dir"
            )
    return content["runs"]


def write(path: Path, content: dict, count: int) -> None:
    """Writes the variants to `path`, and beside it their table, as text; `count` faces judged."""
    write_text(path, json.dumps(content))
    runs = content["runs"]
    faces = f"{count:,} faces of val"
    if content["train_faces"]:
        faces += f" and of train, where {content['train_faces']:,} others are learned"
    text = (
        f"{table(runs, count)}\n\n"
        f"python advanced_network.py {shlex.join(content['flags'])}\n"
        f"{faces}, {machine_of(runs[ITSELF])}\n"
    )
    others: dict[str, list[str]] = {}
    for name, run in runs.items():
        others.setdefault(machine_of(run), []).append(name)
    for machine, names in others.items():
        if ITSELF not in names:
            text += "\n".join(wrapped(f"on {machine}: {'; '.join(names)}")) + "\n"
    write_text(path.with_suffix(".txt"), text)


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("--data-dir", type=Path, default=cli.DATA_DIR, help="of train and val")
    parser.add_argument(
        "--results-dir", type=Path, default=cli.RESULTS_DIR / "ablation", help="of the table"
    )
    parser.add_argument(
        "--train-faces", type=cli.positive(int), metavar="FACES", help="of train, others are judged"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="VARIANT", choices=VARIANTS, help="besides the recipe itself"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.epilog = "All other flags are advanced_network.py's and change the recipe itself."
    args, more = parser.parse_known_args(argv)
    flags, shown = [*RECIPE.split(), *more], ["--quiet"] if args.quiet else []
    splits = stage.load_splits(args.data_dir, ("train", "val"), wanted=("train", "val"))
    judged, soft_labels = splits["val"], soft_labels_path(cli.RESULTS_DIR)
    if args.train_faces:
        splits["train"], judged = few(splits["train"], splits["val"], args.train_faces)
        soft_labels = soft_labels_path(args.results_dir)
    itself = advanced_network.parser().parse_args([*flags, *shown])
    setup, classes = advanced_network.setup(itself), len(splits["train"].class_names)
    about = {
        "flags": flags,
        "train_faces": args.train_faces,
        "faces": [splits["train"].digest(), judged.digest()],
        "network": str(stage.new_network(setup, classes, itself.seed, torch.device("cpu"))),
    }
    path = args.results_dir / "ablation.json"
    done = stored(path, about)
    filled = {"soft_labels": soft_labels, "twice": 2 * itself.epochs}
    for name, (own, changed) in VARIANTS.items():
        if name in done or (args.only and name not in (ITSELF, *args.only)):
            continue
        own = [flag.format(**filled) for flag in own.split()]
        variant = advanced_network.parser().parse_args([*flags, *shown, *own])
        taught = variant.soft_labels != "none"
        if args.train_faces and taught and not soft_labels.is_file():
            teach(itself, splits, soft_labels)
        trained = results_of(train(variant, changed, splits), judged)
        done[name] = trained | {"machine": describe_machine(choose_device(variant.device))}
        done = stored(path, about) | done  # another run may have added its own
        print(f"{name}: loss {done[name]['loss']:.3f}", flush=True)
        write(path, about | {"runs": done}, len(judged))
    print(path.with_suffix(".txt").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
