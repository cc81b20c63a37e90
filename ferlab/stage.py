"""What every model script does around its model: splits, training, weights, reports."""

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from ferlab import reports
from ferlab.augment import Augmentation
from ferlab.calibration import calibration_error, fit_temperature
from ferlab.checkpoint import load_checkpoint, load_model, parameter_count, save_model
from ferlab.cli import RESULTS_DIR
from ferlab.data import SPLITS, Split, available_splits, load_split, split_path
from ferlab.evaluation import evaluate, predict_views
from ferlab.files import UserError, require_writable
from ferlab.recipe import Recipe
from ferlab.runtime import (
    choose_device,
    choose_precision,
    describe_machine,
    seed_everything,
)
from ferlab.training import fit

Build = Callable[..., nn.Module]


@dataclass(frozen=True)
class Setup:
    """What a script trains: its network, and the part of the recipe that is its own.

    Attributes:
        name: the model's name in file names.
        title: the model's name for people.
        build: makes the network from `config` and `classes`, the number of classes.
        config: the network's hyperparameters, plain types.
        augmentation: of the train split, unless a flag turns it off.
        recipe: fields of `Recipe` that no shared flag sets, `optimizer` at least.
    """

    name: str
    title: str
    build: Build
    config: dict
    augmentation: Augmentation
    recipe: dict[str, str | float]


def recipe_of(setup: Setup, args: argparse.Namespace, precision: str) -> Recipe:
    """Returns the recipe that a script's flags ask for, in the number format `precision`."""
    augmentation = setup.augmentation.scaled(args.augment_strength)
    return Recipe(
        epochs=args.epochs,
        batch_size=args.batch_size,
        lr=args.lr,
        weight_decay=args.weight_decay,
        augmentation=asdict(augmentation) if args.augment else None,
        class_weights=args.class_weights,
        oversample=args.oversample,
        precision=precision,
        seed=args.seed,
        **setup.recipe,
    )


def new_network(setup: Setup, classes: int, seed: int, device: torch.device) -> nn.Module:
    """Returns the network before training, its weights drawn from `seed`."""
    seed_everything(seed, device)
    return setup.build(**setup.config, classes=classes)


def run(setup: Setup, args: argparse.Namespace) -> int:
    """Trains and reports one model, or with `--evaluate` only reports its saved weights.

    Args:
        setup: what the script trains.
        args: the parsed flags of `training_parser`.

    Returns:
        The exit code.

    Raises:
        UserError: whatever a user can mend.
    """
    require_writable(args.results_dir)
    device = choose_device(args.device)
    name, title = setup.name, setup.title
    if args.evaluate:
        return report_saved(name, title, setup.build, args, device)

    splits = load_splits(args.data_dir, required=("train", "val"))
    train, val = splits["train"], splits["val"]
    checkpoint = args.results_dir / f"{name}_checkpoint.pth"
    if args.resume and args.precision == "auto":  # whatever was measured when the run began
        precision = load_checkpoint(checkpoint)["recipe"]["precision"]
    else:
        precision = str(choose_precision(args.precision, device)).removeprefix("torch.")
    recipe = recipe_of(setup, args, precision)
    classes = len(train.class_names)
    result = fit(
        new_network(setup, classes, args.seed, device),
        train.to(device),
        val.to(device),
        recipe,
        checkpoint=checkpoint,
        resume=args.resume,
        quiet=args.quiet,
        report=(lambda line: None) if args.quiet else print,
    )
    run_record = {
        "command": command_line(),
        "seed": args.seed,
        "epochs": recipe.epochs,
        "best_epoch": result.best_epoch,
        "chosen_by": "accuracy on val, of the epochs' averaged weights",
        "seconds": round(result.seconds, 1),
        "images_per_second": round(result.images_per_second),
        "parameters": parameter_count(result.model),
        "train_counts": train.class_counts().tolist(),
        "precision": recipe.precision,
        "recipe": asdict(recipe),
        **describe_machine(device),
    }
    one_view, _ = predict_views(result.model, val.images.to(device))
    temperature = fit_temperature(one_view.cpu().numpy(), val.labels.numpy())
    save_model(
        args.results_dir / f"{name}_model.pth",
        name,
        result.model,
        {**setup.config, "classes": classes},
        train.class_names,
        temperature,
        run_record,
    )
    reports.write_history(args.results_dir, name, title, result.history, result.best_epoch)
    return report(name, title, result.model, temperature, splits, run_record, args, device)


def report_saved(
    name: str, title: str, build: Build, args: argparse.Namespace, device: torch.device
) -> int:
    """Writes the reports of saved weights, training nothing."""
    file = f"{name}_model.pth"
    places = [args.results_dir / file, RESULTS_DIR / file]
    path = args.weights or next((p for p in places if p.is_file()), places[0])
    model, content = load_model(path, name, build)
    print(f"weights: {path}")
    splits = load_splits(args.data_dir, class_names=tuple(content["class_names"]))
    record = {**content["run"], "evaluated_by": command_line(), "weights": str(path)}
    return report(name, title, model, content["temperature"], splits, record, args, device)


def report(
    name: str,
    title: str,
    model: nn.Module,
    temperature: float,
    splits: dict[str, Split],
    run_record: dict,
    args: argparse.Namespace,
    device: torch.device,
) -> int:
    """Evaluates a network on `splits` and writes the results contract's files.

    The reported numbers are computed in float32 wherever the weights were trained, so that they
    are the same on every machine.
    """
    class_names = next(iter(splits.values())).class_names
    majority = max(range(len(class_names)), key=run_record["train_counts"].__getitem__)
    model = model.to(device, memory_format=torch.channels_last)

    metrics, predictions = {}, {}
    for split_name, split in splits.items():
        one_view, mirrored = predict_views(model, split.images.to(device))
        probs = ((one_view + mirrored) / 2).softmax(1).cpu().numpy()
        labels = split.labels.numpy()
        metrics[split_name] = evaluate(labels, probs, class_names, majority)
        metrics[split_name]["digest"] = split.digest()
        if split_name != "train":
            for key, divisor in (("ece", 1.0), ("ece_calibrated", temperature)):
                confidence = (one_view / divisor).softmax(1).cpu().numpy()
                metrics[split_name][key] = calibration_error(confidence, labels)
            predictions[f"{split_name}_labels"] = labels.astype("int8")
            predictions[f"{split_name}_probs"] = probs
    record = {"model": name, "title": title, "class_names": list(class_names)}
    run_record = {**run_record, "temperature": temperature}
    record |= {"parameters": run_record["parameters"], **metrics, "run": run_record}
    reports.write_predictions(args.results_dir, name, predictions)
    text = reports.write_results(args.results_dir, record, args.data_dir)
    if not args.quiet:
        print(text)
    following = reports.next_command(name, args.data_dir, args.results_dir)
    print(f"wrote {args.results_dir}/{name}_*; next: {following}")
    return 0


def load_splits(
    data_dir: Path,
    required: tuple[str, ...] = (),
    class_names: tuple[str, ...] | None = None,
    wanted: tuple[str, ...] = SPLITS,
) -> dict[str, Split]:
    """Loads every wanted split that is in `data_dir`, so that all faults show before the work.

    Args:
        data_dir: the folder of the split files.
        required: splits that must be there.
        class_names: what the classes must be; by default those of the first split.
        wanted: splits that are looked at; no other file is opened.

    Raises:
        UserError: a split is missing, or one is not as it should be, or there is none at all.
    """
    there = {*available_splits(data_dir), *required}
    splits = {name: load_split(data_dir, name) for name in wanted if name in there}
    if not splits:
        raise UserError(f"{data_dir} holds no split; make it with: python dataset_preparation.py")
    expected = class_names or next(iter(splits.values())).class_names
    for name, split in splits.items():
        if split.class_names != expected:
            raise UserError(
                f"{split_path(data_dir, name)} has classes {', '.join(split.class_names)}; "
                f"expected {', '.join(expected)}; make it anew with: python dataset_preparation.py"
            )
    return splits


def command_line() -> str:
    """Returns the command that runs this program, as a person types it."""
    return shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
