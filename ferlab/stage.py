"""What every model script does around its model: splits, training, weights, reports."""

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from ferlab.cli import RESULTS_DIR
from ferlab.data.augmentation import Augmentation
from ferlab.data.splits import SPLITS, Split, available_splits, load_split, split_path
from ferlab.evaluation import reports
from ferlab.evaluation.calibration import calibration_error, fit_temperature
from ferlab.evaluation.metrics import evaluate, predict_members
from ferlab.files import UserError, require_writable
from ferlab.training.checkpoint import load_checkpoint, load_model, parameter_count, save_model
from ferlab.training.device import (
    choose_device,
    describe_machine,
    precision_name,
    seed_everything,
)
from ferlab.training.distributed import from_first, process_group, rank, world_size
from ferlab.training.fit import fit
from ferlab.training.prediction import predict_views
from ferlab.training.recipe import Recipe

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
    device = choose_device(args.device)
    with process_group(device):
        if rank():
            args.quiet = True
        else:
            require_writable(args.results_dir)
        if args.evaluate:
            return report_saved(setup.name, setup.title, setup.build, args, device)
        return train_and_report(setup, args, device)


def train_and_report(setup: Setup, args: argparse.Namespace, device: torch.device) -> int:
    """Trains and reports one model; arguments and errors as of `run`."""
    name, title = setup.name, setup.title
    splits = load_splits(args.data_dir, required=("train", "val"))
    train, val = splits["train"], splits["val"]
    checkpoint = args.results_dir / f"{name}_checkpoint.pth"
    if args.resume and args.precision == "auto":  # whatever was measured when the run began
        precision = from_first(load_checkpoint, checkpoint)["recipe"]["precision"]
    else:
        precision = from_first(precision_name, args.precision, device)
    recipe = recipe_of(setup, args, precision)
    if "soft_labels" in setup.recipe and not args.quiet:
        print(f"soft labels: {recipe.soft_labels or 'none'}")
    classes = len(train.class_names)
    config = {**setup.config, "classes": classes}
    result = fit(
        new_network(setup, classes, args.seed, device),
        train.to(device),
        val.to(device),
        recipe,
        checkpoint=checkpoint,
        resume=args.resume,
        quiet=args.quiet,
        report=(lambda line: None) if args.quiet else print,
        config=config,
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
        "processes": world_size(),
        "recipe": asdict(recipe),
        "network": config,
        **describe_machine(device),
    }
    one_view, _ = predict_views(result.model, val.images.to(device))
    temperature = fit_temperature(one_view.cpu().numpy(), val.labels.numpy())
    if rank() == 0:
        save_model(
            args.results_dir / f"{name}_model.pth",
            name,
            result.model,
            config,
            train.class_names,
            temperature,
            run_record,
        )
        reports.write_history(args.results_dir, name, title, result.history, result.best_epoch)
    return report(name, title, [(result.model, temperature)], splits, run_record, args, device)


def report_saved(
    name: str, title: str, build: Build, args: argparse.Namespace, device: torch.device
) -> int:
    """Writes the reports of saved weights, training nothing; several files make an ensemble."""
    file = f"{name}_model.pth"
    places = [args.results_dir / file, RESULTS_DIR / file]
    paths = args.weights or [next((p for p in places if p.is_file()), places[0])]
    members, contents = [], []
    for path in paths:
        model, content = load_model(path, name, build)
        members.append((model, content["temperature"]))
        contents.append(content)
        if rank() == 0:
            print(f"weights: {path}")
    class_names = contents[0]["class_names"]
    for path, content in zip(paths, contents, strict=True):
        if content["class_names"] != class_names:
            raise UserError(f"{path} and {paths[0]} tell different classes apart; leave one out")
    splits = load_splits(args.data_dir, class_names=tuple(class_names))
    record = {**contents[0]["run"], "evaluated_by": command_line()}
    record["weights"] = ", ".join(map(str, paths))
    record["network"] = contents[0]["config"]
    if len(paths) > 1:
        title = f"{title}, ensemble of {len(paths)}"
        for key in ("parameters", "seconds"):
            record[key] = sum(content["run"][key] for content in contents)
    return report(name, title, members, splits, record, args, device)


def report(
    name: str,
    title: str,
    members: list[tuple[nn.Module, float]],
    splits: dict[str, Split],
    run_record: dict,
    args: argparse.Namespace,
    device: torch.device,
) -> int:
    """Evaluates networks on `splits` and writes the results contract's files.

    The reported numbers are computed in float32 wherever the weights were trained, so that they
    are the same on every machine.

    Args:
        name: the model's name in file names.
        title: the model's name for people.
        members: each network with its temperature; several are averaged in their probabilities.
        splits: what to evaluate on.
        run_record: how the weights came about.
        args: the parsed flags.
        device: where to compute.
    """
    class_names = next(iter(splits.values())).class_names
    majority = max(range(len(class_names)), key=run_record["train_counts"].__getitem__)

    metrics, predictions = {}, {}
    for split_name, split in splits.items():
        labels, images = split.labels.numpy(), split.images.to(device)
        probs, live, calibrated = predict_members(members, images)
        metrics[split_name] = evaluate(labels, probs, class_names, majority)
        metrics[split_name]["digest"] = split.digest()
        if split_name != "train":
            metrics[split_name]["ece"] = calibration_error(live, labels)
            metrics[split_name]["ece_calibrated"] = calibration_error(calibrated, labels)
            predictions[f"{split_name}_labels"] = labels.astype("int8")
            predictions[f"{split_name}_probs"] = probs
    if rank():
        return 0  # the first process writes
    record = {"model": name, "title": title, "class_names": list(class_names)}
    temperatures = [temperature for _, temperature in members]
    run_record = {**run_record, "temperature": sum(temperatures) / len(temperatures)}
    record |= {"parameters": run_record["parameters"], **metrics, "run": run_record}
    reports.write_predictions(args.results_dir, name, predictions)
    text = reports.write_results(args.results_dir, record, args.data_dir)
    shown = reports.last_split(record)
    if shown != "train" and run_record["parameters"]:
        reports.write_errors(args.results_dir, record, splits[shown], predictions)
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
    """Returns the command that repeats what this program does, as a person types it.

    Without `--resume`: a run in parts is the run of the same flags, and who repeats it has no
    checkpoint.
    """
    words = [word for word in sys.argv[1:] if word != "--resume"]
    return shlex.join(["python", Path(sys.argv[0]).name, *words])
