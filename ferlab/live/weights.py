"""Which weights the live program and the export use when none are named."""

from pathlib import Path

from ferlab.constants import REFERENCE_DIR, RESULTS_DIR

FILE = "advanced_model.pth"


def default_weights(results_dir: Path = RESULTS_DIR) -> Path:
    """Returns the user's own weights of the CNN if there are any, else the shipped ones.

    Weights trained on votes come before weights trained on labels.

    Args:
        results_dir: the folder of the user's results, relative to the current folder; the shipped
            weights are found from any folder.

    Returns:
        The first file that exists; `advanced_model.pth` in `results_dir` if none does.
    """
    folders = (results_dir / "votes", results_dir, REFERENCE_DIR / "votes", REFERENCE_DIR)
    found = (folder / FILE for folder in folders if (folder / FILE).is_file())
    return next(found, results_dir / FILE)


def describe(path: Path, targets: str | None) -> str:
    """Returns the line about the weights: the file and, where known, what they were trained on.

    Args:
        path: the weights file.
        targets: "votes" or "labels"; None if the file does not hold it.
    """
    return f"{path}, trained on {targets}" if targets else str(path)
