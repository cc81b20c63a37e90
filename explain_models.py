"""Pictures of what each model sees: weights, Grad-CAM, shifts, robustness, agreement with raters.

    python explain_models.py
    python explain_models.py --targets votes

Reads the weights of each model in --results-dir (the CNN's from reference/ where there are none)
and the test split. Writes `explain_*.png` and `explain.txt`, which has every number of the
pictures. Needs captum.
"""

import argparse
import os
import sys
from pathlib import Path

from ferlab import cli, entry


def parser() -> argparse.ArgumentParser:
    """Returns the script's flags."""
    result = cli.parser(__doc__)
    add = result.add_argument
    add("--data-dir", type=Path, default=cli.DATA_DIR, help="folder of the split files")
    add(
        "--results-dir",
        type=Path,
        help="folder of the models' weights, where the pictures are written (default: results, "
        "with --targets votes results/votes)",
    )
    add(
        "--targets",
        choices=cli.TARGETS,
        default="labels",
        help="what the models were trained on, and what counts as correct",
    )
    add("--quiet", action="store_true", help="print no progress and no text")
    return result


if __name__ == "__main__":
    entry.before_imports(parser())  # torch takes seconds to import

from torch import nn
from tqdm import tqdm

from ferlab.commands import script_of, stage_command
from ferlab.data.splits import load_splits
from ferlab.evaluation import explanation_report as report
from ferlab.evaluation.runs import place_of
from ferlab.files import UserError, require_writable, write_text
from ferlab.live.onnx_classifier import require_packages
from ferlab.stage import saved_weights
from ferlab.training.recipe import expected_class, require_targets
from ferlab.training.weights import load_model


def load_models(folder: Path, targets: str, data_dir: Path) -> dict[str, tuple[nn.Module, dict]]:
    """Returns the network and the content of the weights file of each model that there is.

    Raises:
        UserError: there is none, a file is damaged, or two are of different classes.
    """

    def command(name: str) -> str:
        return stage_command(
            script_of(name), data_dir=data_dir, results_dir=folder, targets=targets
        )

    names = {path.name.removesuffix("_model.pth") for path in folder.glob("*_model.pth")}
    names = (names | {"advanced"}) - {"baseline"}  # the baseline does not use the image
    paths = {name: saved_weights(name, folder, targets) for name in sorted(names, key=place_of)}
    found = {
        name: load_model(path, command(name))
        for name, path in paths.items()
        if os.path.lexists(path)
    }
    if not found:
        raise UserError(f"{folder} has no *_model.pth; train a model with: {command('softmax')}")
    first = next(iter(found))
    for name, (_, content) in found.items():
        if content["class_names"] != found[first][1]["class_names"]:
            raise UserError(
                f"{paths[name]} has other classes than {paths[first]}; "
                f"train it on the same data with: {command(name)}"
            )
    return found


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    args = parser().parse_args(argv)
    require_packages(["captum"])
    folder = require_writable(args.results_dir)
    models = load_models(folder, args.targets, args.data_dir)
    names = next(iter(models.values()))[1]["class_names"]
    splits = load_splits(
        args.data_dir, required=("test",), class_names=tuple(names), wanted=("test",)
    )
    test = splits["test"]
    require_targets(test, args.targets)
    expected = expected_class(test, args.targets)
    steps = report.steps_of(models, test, expected, args.targets, folder)
    lines = [f"Models in {folder}: {', '.join(c['run']['title'] for _, c in models.values())}", ""]
    for step in tqdm(steps, unit="picture", disable=args.quiet):
        lines += step()
    text = "\n".join(lines)
    write_text(folder / "explain.txt", text)
    if not args.quiet:
        print(text)
    print(f"wrote {folder}/explain.txt and {folder}/explain_*.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
