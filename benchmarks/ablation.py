"""What each ingredient of the CNN's recipe gives on val: a short recipe, one change at a time.

    python benchmarks/ablation.py
    python benchmarks/ablation.py --epochs 24 --blocks 2 --results-dir results/long   # a longer one

Every variant trains from the same seed for the same number of epochs, and is judged by its last
epoch, so that nothing is chosen. `±` is the standard error of the difference to the recipe itself,
from the faces where only one of the two is right; the other seeds show how far chance alone goes.
`rarest` is the recall of the rarest class, disgust. Writes `ablation.txt` and `ablation.json` to
`--results-dir` after each variant; those that are there are not trained again. Never looks at test.
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

import advanced_network
from ferlab import cli, stage
from ferlab.data import Split
from ferlab.distillation import soft_labels_path
from ferlab.evaluation import predict_views
from ferlab.files import UserError, atomic_path
from ferlab.runtime import choose_device, describe_machine, precision_name
from ferlab.trainer import Trainer

SOFT_LABELS = f"--soft-labels {soft_labels_path(cli.RESULTS_DIR)}"
RECIPE = "--preset quick --decay cosine --stem-width 0 --blocks 1 --epochs 8 --small-share 0.75"
ITSELF = "the recipe itself"
ONE_VIEW = "one view, not two"
VARIANTS: dict[str, tuple[str, dict]] = {  # flags, and fields of the recipe that no flag sets
    ITSELF: ("", {}),
    "seed 1": ("--seed 1", {}),
    "seed 2": ("--seed 2", {}),
    "SGD, not Muon": ("--optimizer sgd --lr 0.1 --weight-decay 5e-4", {}),
    "AdamW, not Muon": ("--optimizer adamw --lr 3e-3 --weight-decay 0.05", {}),
    "no smoothing of labels": ("", {"label_smoothing": 0.0}),
    "no averaging of weights": ("", {"ema_epochs": 0.0}),
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
}


def train(flags: argparse.Namespace, changed: dict, splits: dict[str, Split], quiet: bool) -> dict:
    """Trains a variant; returns its last epoch's numbers and its predictions on val."""
    device = choose_device(flags.device)
    setup = advanced_network.setup(flags)
    setup = replace(setup, recipe=setup.recipe | changed)
    model = stage.new_network(setup, len(splits["train"].class_names), flags.seed, device)
    recipe = stage.recipe_of(setup, flags, precision_name(flags.precision, device))
    trainer = Trainer(model, splits["train"].to(device), recipe)
    val = splits["val"].to(device)
    rows = [trainer.epoch(val, quiet) for _ in range(recipe.epochs)]
    plain, mirrored = predict_views(trainer.ema.module, val.images)
    return {
        "seconds": sum(row["train_seconds"] for row in rows),
        "train_loss": rows[-1]["train_loss"],
        "val_loss": rows[-1]["val_loss"],
        "preds": (plain + mirrored).argmax(1).tolist(),
        "one_view_preds": plain.argmax(1).tolist(),
        "recipe": asdict(recipe),
    }


def difference(right: np.ndarray, base: np.ndarray) -> tuple[float, float]:
    """Returns the difference of two accuracies on the same faces and its standard error.

    Args:
        right: bool `(N,)`, where the variant is right.
        base: the same of what it is compared with.
    """
    each = right.astype(float) - base
    return each.mean(), each.std() / len(each) ** 0.5


def table(done: dict[str, dict], val: Split) -> str:
    """Returns the results as text."""
    labels = val.labels.numpy()
    rarest = labels == val.class_counts().argmin().item()
    predicted = {name: np.array(run["preds"]) for name, run in done.items()}
    base = predicted[ITSELF] == labels
    rows = [(name, done[name], predicted[name]) for name in VARIANTS if name in done]
    rows.append((ONE_VIEW, done[ITSELF], np.array(done[ITSELF]["one_view_preds"])))
    heads = ("val loss", "macro F1", "rarest", "seconds")
    lines = [f"{'':36}{'accuracy':>8}{'change':>16}" + "".join(f"{head:>10}" for head in heads)]
    for name, run, preds in rows:
        change, error = difference(preds == labels, base)
        told = "" if name == ITSELF else f"{change:+.3f} ± {error:.3f}"
        loss = "" if name == ONE_VIEW else f"{run['val_loss']:.3f}"
        lines.append(
            f"{name:36}{(preds == labels).mean():8.3f}{told:>16}{loss:>10}"
            f"{f1_score(labels, preds, average='macro'):10.3f}"
            f"{(preds == labels)[rarest].mean():10.2f}{run['seconds']:10.0f}"
        )
    return "\n".join(lines)


def stored(path: Path, flags: list[str], network: str) -> dict[str, dict]:
    """Returns the variants that are in `path` already.

    Raises:
        UserError: they are of another recipe or another network.
    """
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["flags"] != flags:
        raise UserError(
            f"{path} is of {shlex.join(content['flags'])}; delete it, or add another --results-dir"
        )
    if content.get("network") != network:
        raise UserError(f"{path} is of a network that has changed since; delete it")
    return content["runs"]


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("--data-dir", type=Path, default=cli.DATA_DIR, help="of train and val")
    parser.add_argument(
        "--results-dir", type=Path, default=cli.RESULTS_DIR / "ablation", help="of the table"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="VARIANT", choices=VARIANTS, help="besides the recipe itself"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.epilog = "All other flags are advanced_network.py's and change the recipe itself."
    args, more = parser.parse_known_args(argv)
    flags = [*RECIPE.split(), *more]
    splits = stage.load_splits(args.data_dir, ("train", "val"), wanted=("train", "val"))
    path = args.results_dir / "ablation.json"
    itself = advanced_network.parser().parse_args(flags)
    setup, classes = advanced_network.setup(itself), len(splits["train"].class_names)
    network = str(stage.new_network(setup, classes, itself.seed, torch.device("cpu")))
    done = stored(path, flags, network)
    val = splits["val"]
    for name, (own, changed) in VARIANTS.items():
        if name in done or (args.only and name not in (ITSELF, *args.only)):
            continue
        variant = advanced_network.parser().parse_args([*flags, *own.split()])
        done[name] = train(variant, changed, splits, args.quiet)
        print(f"{name}: val loss {done[name]['val_loss']:.3f}", flush=True)
        machine = describe_machine(choose_device(variant.device))
        content = {"flags": flags, "network": network, "machine": machine, "runs": done}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content))
        text = (
            f"{table(done, val)}\n\npython advanced_network.py {shlex.join(flags)}\n"
            f"{len(val):,} faces of val, {machine['device_name']}, {machine['threads']} threads\n"
        )
        with atomic_path(path.with_suffix(".txt")) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(path.with_suffix(".txt").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
