"""What each ingredient of the CNN's recipe gives: one change at a time, judged on held-out images.

    python benchmarks/ablation.py --targets votes
    python benchmarks/ablation.py --targets labels --only "SGD" "no EMA"

The network is trained on a part of train, for so many epochs that it overfits as in a long run on
the whole of train. It is judged on the rest of train and on val, which are enough images to show a
difference of half a point. Every variant is trained from the same seed and judged by its last
epoch; nothing is chosen, and test is never read. `±` is the standard error of the difference to the
recipe, from the images that exactly one of the two classifies correctly; seeds 1 and 2 show the
effect of chance. Writes `ablation_<targets>.csv` to --results-dir after each variant; variants that
are in it are not trained again. Further flags are advanced_network.py's and change the recipe of
all variants. A variant takes 2 to 3 minutes on two CPU cores with bfloat16 instructions.
"""

import argparse
import csv
import shlex
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import advanced_network
from ferlab import cli, entry

RECIPE = "the recipe"
VARIANTS: dict[str, tuple[str, dict]] = {  # flags, and fields of the recipe that no flag sets
    RECIPE: ("", {}),
    "seed 1": ("--seed 1", {}),
    "seed 2": ("--seed 2", {}),
    "SGD": ("--optimizer sgd --lr 0.1 --weight-decay 5e-4", {}),
    "SGD, half the learning rate": ("--optimizer sgd --lr 0.05 --weight-decay 5e-4", {}),
    "SGD, twice the learning rate": ("--optimizer sgd --lr 0.2 --weight-decay 5e-4", {}),
    "AdamW": ("--optimizer adamw --lr 3e-3 --weight-decay 0.05", {}),
    "half the learning rate": ("--lr 0.025", {}),
    "twice the learning rate": ("--lr 0.1", {}),
    "four times the weight decay": ("--weight-decay 0.2", {}),
    "no EMA": ("", {"ema_epochs": 0.0}),
    "no label smoothing": ("", {"label_smoothing": 0.0}),
    "no gradient clipping": ("", {"clip": 0.0}),
    "dropout of 0.3": ("--dropout 0.3", {}),
    "flip alone": ("--augment-strength 0", {}),
    "augmentation two fifths as wide": ("--augment-strength 0.4", {}),
    "augmentation half as wide again": ("--augment-strength 1.5", {}),
    "48x48 in all epochs": ("--low-resolution-epochs 0", {}),
    "stem at full resolution": ("--stem-stride 1", {}),
    "two blocks in a stage": ("--blocks 2", {}),
    "class weights": ("--class-weights balanced", {}),
    "oversampling": ("--oversample", {}),
}
COLUMNS = ("variant", "labels", "raters", "loss", "seconds", "parameters", "command", "correct")


def parser() -> argparse.ArgumentParser:
    """Returns the benchmark's own flags."""
    result = cli.parser(__doc__)
    add = result.add_argument
    add("--data-dir", type=Path, default=cli.DATA_DIR, help="folder of the split files")
    add("--results-dir", type=Path, default=cli.RESULTS_DIR / "ablation", help="folder of the CSV")
    add("--targets", choices=cli.TARGETS, default="votes", help="what is trained on")
    add("--train-images", type=cli.positive(int), default=6000, help="images of train to train on")
    add("--epochs", type=cli.positive(int), default=20, help="epochs of each variant")
    add("--only", nargs="+", choices=VARIANTS, metavar="VARIANT", help="variants to train")
    add("--quiet", action="store_true", help="no progress bars")
    return result


if __name__ == "__main__":
    entry.before_imports(parser(), known=True)

import numpy as np
import torch
from torch.nn import functional as F

from ferlab import stage
from ferlab.data.splits import Split
from ferlab.files import UserError, write_csv
from ferlab.training.device import choose_device, precision_name
from ferlab.training.prediction import predict_logits
from ferlab.training.recipe import expected_class, rows_and_targets
from ferlab.training.trainer import Trainer
from ferlab.training.weights import parameter_count


def divided(splits: dict[str, Split], count: int) -> tuple[Split, Split]:
    """Returns `count` images of train, and the others together with val.

    Raises:
        UserError: train has no more than `count` images.
    """
    train, val = splits["train"], splits["val"]
    if count >= len(train):
        raise UserError(f"--train-images {count}: train has {len(train):,}, some are held out")
    drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    rest = train.take(drawn[count:])
    joined = {name: torch.cat([t, rest.tensors()[name]]) for name, t in val.tensors().items()}
    return train.take(drawn[:count]), Split(class_names=val.class_names, **joined)


def measured(flags: list[str], changed: dict, train: Split, judged: Split) -> dict:
    """Trains a variant to its last epoch; returns its row."""
    args = advanced_network.parser().parse_args(flags)
    setup = advanced_network.setup(args)
    setup = replace(setup, recipe=setup.recipe | changed)
    device = choose_device(args.device)
    model = stage.new_network(setup, len(train.class_names), args.seed, device)
    recipe = stage.recipe_of(setup, args, precision_name(args.precision, device))
    trainer = Trainer(model, train.to(device), recipe)
    val = judged.take(torch.arange(len(judged)) < 500).to(device)  # decides nothing
    for _ in range(recipe.epochs):
        trainer.epoch(val, args.quiet)
    logits = predict_logits(trainer.ema.module, judged.images.to(device), trainer.precision).cpu()
    rows, targets = rows_and_targets(judged, args.targets)  # images without votes have no loss
    expected = expected_class(judged, args.targets)
    correct = (logits.argmax(1) == expected)[expected >= 0]
    result = {
        "labels": f"{(logits.argmax(1) == judged.labels).float().mean():.4f}",
        "loss": f"{F.cross_entropy(logits[rows], targets[rows]):.4f}",
        "seconds": round(sum(row["train_seconds"] for row in trainer.history)),
        "parameters": parameter_count(trainer.model),
        "correct": np.packbits(correct.numpy()).tobytes().hex(),
    }
    if judged.majority is not None:
        decided = judged.agreement > 0
        right = (logits.argmax(1) == judged.majority)[decided]
        result["raters"] = f"{right.float().mean():.4f}"
    return result


def table(rows: dict[str, dict], targets: str) -> str:
    """Returns the rows as text, with each variant's difference to the recipe."""

    def correct(row: dict) -> np.ndarray:
        return np.unpackbits(np.frombuffer(bytes.fromhex(row["correct"]), np.uint8)).astype(float)

    lines = [f"{'':33}{'by labels':>10}{'by raters':>10}{f'change by {targets}':>22}{'s':>6}"]
    for name, row in rows.items():
        each = correct(row) - correct(rows[RECIPE])
        change = f"{100 * each.mean():+.2f} ± {100 * each.std() / len(each) ** 0.5:.2f}"
        shown = "" if name == RECIPE else change
        lines.append(
            f"{name:33}{row['labels']:>10}{row.get('raters') or '-':>10}{shown:>22}"
            f"{row['seconds']:>6}"
        )
    return "\n".join(lines)


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    args, more = parser().parse_known_args(argv)
    base = ["--preset", "quick", "--epochs", str(args.epochs), "--targets", args.targets, *more]
    advanced_network.parser().parse_args(base)  # bad usage ends here
    splits = stage.load_splits(args.data_dir, ("train", "val"), wanted=("train", "val"))
    train, judged = divided(splits, args.train_images)
    path = args.results_dir / f"ablation_{args.targets}.csv"
    rows: dict[str, dict] = {}
    if path.is_file():
        with path.open(newline="") as file:
            rows = {row["variant"]: row for row in csv.DictReader(file)}
    for name, (flags, changed) in VARIANTS.items():
        words = [*base, *flags.split()]
        command = shlex.join(["python", "advanced_network.py", *words])
        if args.only and name not in (RECIPE, *args.only):
            continue
        if name in rows:
            if rows[name]["command"] != command:
                raise UserError(f"{path} is of other flags; name another --results-dir")
            continue
        quiet = ["--quiet"] if args.quiet else []
        row = measured([*words, *quiet], changed, train, judged)
        rows[name] = {"variant": name, "command": command} | row
        write_csv(path, COLUMNS, rows.values())
        print(f"{name}: by labels {row['labels']}, by raters {row.get('raters', '-')}", flush=True)
    print(f"{len(train):,} images trained on, {len(judged):,} judged")
    print(table(rows, args.targets))
    return 0


if __name__ == "__main__":
    sys.exit(main())
