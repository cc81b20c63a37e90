"""What every model script does around its model: splits, training, weights, reports.

The evaluation, which needs scikit-learn, SciPy and matplotlib, is imported inside the functions:
the live program imports a model script, and its first frame should not wait for them.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from ferlab.commands import command_line, next_command, script_of, stage_command
from ferlab.constants import REFERENCE_DIR, ROOT
from ferlab.data.augmentation import Augmentation
from ferlab.data.splits import Split, load_splits
from ferlab.files import UserError, require_writable
from ferlab.training.checkpoint import load_checkpoint
from ferlab.training.device import (
    choose_device,
    describe_machine,
    precision_name,
    seed_everything,
)
from ferlab.training.distributed import from_rank_0, process_group, rank, world_size
from ferlab.training.fit import fit
from ferlab.training.prediction import predict_members, predict_views
from ferlab.training.recipe import Recipe, require_targets, rows_and_targets, target_distribution
from ferlab.training.streaming import on_device
from ferlab.training.weights import load_model, parameter_count, save_model

RUN_KEYS = {
    "title", "command", "targets", "seed", "chosen_by", "seconds", "parameters", "train_counts",
}  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """What a script trains: its network, and the part of the recipe that is its own.

    Attributes:
        name: the model's name in file names; that of its script (see `commands.script_of`).
        title: the model's name for people.
        build: makes the network from `config` and `classes`, the number of classes.
        config: the network's hyperparameters, plain types.
        augmentation: augmentation of the train split, unless a flag turns it off.
        recipe: fields of `Recipe` that no shared flag sets, `optimizer` at least.
    """

    name: str
    title: str
    build: Callable[..., nn.Module]
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
        targets=args.targets,
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
    script = Path(sys.argv[0]).name
    if (ROOT / script).is_file() and script != script_of(setup.name):
        raise UserError(
            f'{script}: setup has name="{setup.name}", whose results are those of '
            f'{script_of(setup.name)}; set it to "{script.removesuffix(".py")}"'
        )
    device = choose_device(args.device)
    with process_group(device):
        if rank():
            args.quiet = True
        else:
            require_writable(args.results_dir)
        if args.evaluate:
            return report_saved(setup, args, device)
        return train_and_report(setup, args, device)


def train_and_report(setup: Setup, args: argparse.Namespace, device: torch.device) -> int:
    """Trains and reports one model; arguments and errors as of `run`."""
    from ferlab.evaluation import reports
    from ferlab.evaluation.calibration import fit_temperature

    name, title = setup.name, setup.title
    splits = load_splits(args.data_dir, required=("train", "val"))
    train, val = splits["train"], splits["val"]
    for split in (train, val):
        require_targets(split, args.targets)
    checkpoint = args.results_dir / f"{name}_checkpoint.pth"
    if args.resume and args.precision == "auto":  # whatever the run began with
        precision = from_rank_0(load_checkpoint, checkpoint)["recipe"]["precision"]
    else:
        precision = precision_name(args.precision, device)
    recipe = recipe_of(setup, args, precision)
    classes = len(train.class_names)
    config = {**setup.config, "classes": classes}
    result = fit(
        new_network(setup, classes, args.seed, device),
        *on_device([train, val], device),
        recipe,
        checkpoint=checkpoint,
        resume=args.resume,
        quiet=args.quiet,
        report=(lambda line: None) if args.quiet else print,
        config=config,
    )
    chosen_by = "labels" if args.targets == "labels" else "raters' majority"
    record = {
        "title": title,
        "command": command_line(),
        "targets": args.targets,
        "seed": args.seed,
        "epochs": recipe.epochs,
        "best_epoch": result.best_epoch,
        "chosen_by": f"accuracy on val by the {chosen_by}, of the averaged weights of each epoch",
        "seconds": round(result.seconds, 1),
        "images_per_second": round(result.images_per_second),
        "parameters": parameter_count(result.model),
        "train_counts": train.counts(),
        "precision": recipe.precision,
        "processes": world_size(),
        "recipe": asdict(recipe),
        "network": config,
        **describe_machine(device),
    }
    rows, targets = rows_and_targets(val, args.targets)
    one_view, _ = predict_views(result.model, val.images, device=device)
    record["temperature"] = fit_temperature(one_view.cpu()[rows].numpy(), targets[rows].numpy())
    if rank() == 0:
        write_weights(args.results_dir, name, result.model, config, train.class_names, record)
        heading = f"{title}, trained on {args.targets}"
        reports.write_history(args.results_dir, name, heading, result.history, result.best_epoch)
    return report(
        name, title, [(result.model, record["temperature"])], splits, record, args, device
    )


def write_weights(
    folder: Path,
    name: str,
    model: nn.Module,
    config: dict,
    class_names: tuple[str, ...],
    record: dict,
) -> None:
    """Writes a run's weights, its first result, to `folder`; arguments as of `save_model`."""
    from ferlab.evaluation import reports

    reports.begin(folder, name)
    save_model(folder / f"{name}_model.pth", name, model, config, class_names, record)


def report_saved(setup: Setup, args: argparse.Namespace, device: torch.device) -> int:
    """Writes the reports of saved weights; several files make an ensemble.

    Raises:
        UserError: the folder has results of other weights, files do not fit each other, and as
            `run` does.
    """
    name = setup.name
    own = args.results_dir / f"{name}_model.pth"
    given = args.weights or [own]
    others = [path.resolve() for path in given] != [own.resolve()]
    if others and own.is_file() and all(path.is_file() for path in given):
        raise UserError(
            f"{args.results_dir} has the results of {own.name}; choose another --results-dir for "
            f"those of {args.weights[0]}"
        )
    command = stage_command(
        script_of(name),
        data_dir=args.data_dir,
        results_dir=args.results_dir,
        targets=args.targets,
    )
    paths = args.weights or [saved_weights(name, args.results_dir, args.targets)]
    members, contents = [], []
    for path in paths:
        model, content = load_model(path, command)
        if content["model"] != name:
            raise UserError(
                f"{path} holds weights of {content['model']}, not of {name}; "
                f"train it with: {command}"
            )
        members.append((model, content["temperature"]))
        contents.append(content)
        if rank() == 0:
            print(f"weights: {path}")
    class_names = contents[0]["class_names"]
    for path, content in zip(paths, contents, strict=True):
        if missing := RUN_KEYS - content["run"].keys():
            raise UserError(
                f"{path}: run has no {', '.join(sorted(missing))}; train it with: {command}"
            )
        if content["class_names"] != class_names:
            raise UserError(f"{path} and {paths[0]} have different classes; leave one out")
        if content["run"]["targets"] != contents[0]["run"]["targets"]:
            raise UserError(f"{path} and {paths[0]} have different targets; leave one out")
    splits = load_splits(args.data_dir, class_names=tuple(class_names))
    record = contents[0]["run"] | {"network": contents[0]["config"]}
    title = record["title"]  # of what was trained, whatever the flags of this command
    if len(paths) > 1:
        title = f"{title}, ensemble of {len(paths)}"
        runs = [content["run"] for content in contents]
        record = {key: record[key] for key in RUN_KEYS}  # network and recipe may differ
        record |= {key: sum(run[key] for run in runs) for key in ("parameters", "seconds")}
        record |= {"precision": "float32", **describe_machine(device)}
        record["temperature"] = [content["temperature"] for content in contents]
        record["members"] = [run["command"] for run in runs]
    record["evaluated_by"] = command_line()
    record["weights"] = ", ".join(path.as_posix() for path in paths)
    return report(name, title, members, splits, record, args, device)


def saved_weights(name: str, folder: Path, targets: str) -> Path:
    """Returns the weights file of a model in `folder`, or the reference's where it has none."""
    own = folder / f"{name}_model.pth"
    reference = REFERENCE_DIR / ("votes" if targets == "votes" else "") / own.name
    return reference if reference.is_file() and not own.is_file() else own


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

    The reported numbers are computed in float32 on every machine, so that they do not depend on
    its number format.

    Args:
        name: the model's name in file names.
        title: the model's name for people.
        members: each network with its temperature; the probabilities of several are averaged.
        splits: the splits to evaluate on.
        run_record: how the weights were made.
        args: the parsed flags.
        device: where to compute.

    Returns:
        The exit code.
    """
    from ferlab.evaluation import reports
    from ferlab.evaluation.metrics import calibration_of, evaluate_split

    class_names = next(iter(splits.values())).class_names
    metrics, predictions = {}, {}
    for split_name, split in splits.items():
        reported, live, calibrated = predict_members(members, split.images, device)
        metrics[split_name] = evaluate_split(split, reported, run_record["train_counts"])
        if split_name != "train":
            if "temperature" in run_record:
                voted = run_record["targets"] == "votes" and split.votes is not None
                targets = target_distribution(split, "votes" if voted else "labels")
                metrics[split_name] |= calibration_of(live, calibrated, targets.numpy())
            predictions[f"{split_name}_labels"] = split.labels.numpy().astype("int8")
            if split.majority is not None:
                predictions[f"{split_name}_majority"] = split.majority.numpy().astype("int8")
            predictions[f"{split_name}_probs"] = reported
    if rank():
        return 0  # the first process writes
    record = {"model": name, "title": title, "class_names": list(class_names)}
    record |= {"parameters": run_record["parameters"], **metrics, "run": run_record}
    text = reports.write_results(args.results_dir, record, args.data_dir, splits, predictions)
    if not args.quiet:
        print(text)
    following = next_command(name, args.data_dir, args.results_dir, args.targets)
    print(f"wrote {args.results_dir}/{name}_*; next: {following}")
    return 0
