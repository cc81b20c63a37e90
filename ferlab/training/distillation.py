"""Soft labels on disk, and the targets that they make (arXiv 1503.02531)."""

import os
from pathlib import Path

import torch
from torch.nn import functional as F

from ferlab.data.splits import Split, load_tensors, save_tensors
from ferlab.files import UserError

REMEDY = "make it with: python soft_labels.py"


def soft_labels_path(results_dir: str | os.PathLike) -> Path:
    """Returns where the soft labels lie below `results_dir`."""
    return Path(results_dir) / "advanced_soft_labels.pt"


def save_soft_labels(path: Path, probs: torch.Tensor, train: Split) -> None:
    """Writes the teachers' probabilities `(N, classes)` of `train` as float16."""
    content = {
        "probs": probs.half().cpu(),
        "class_names": list(train.class_names),
        "data": train.digest(),
    }
    save_tensors(content, path)


def load_soft_labels(path: Path, train: Split) -> torch.Tensor:
    """Returns the teachers' probabilities of `train`: float32 `(N, classes)`, on its device.

    Raises:
        UserError: missing or damaged file, or of other faces or labels.
    """
    content = load_tensors(path, REMEDY)
    probs = content.get("probs")
    if not isinstance(probs, torch.Tensor) or content.get("data") != train.digest():
        raise UserError(f"{path} holds no soft labels of this train split; {REMEDY}")
    return probs.float().to(train.images.device)


def are_of(path: Path, train: Split) -> bool:
    """Returns whether `path` is there and holds soft labels of `train`, its faces and labels.

    Raises:
        UserError: damaged file.
    """
    return path.is_file() and load_tensors(path, REMEDY).get("data") == train.digest()


def soft_targets(train: Split, probs: torch.Tensor, share: float) -> torch.Tensor:
    """Returns what a student learns: float32 `(N, classes)`, rows sum to 1.

    Args:
        train: the split, for its labels.
        probs: the teachers' probabilities, float32 `(N, classes)`.
        share: the teachers' weight, in [0, 1]; the labels have the rest.
    """
    labels = F.one_hot(train.labels, len(train.class_names)).float()
    return torch.lerp(labels, probs / probs.sum(1, keepdim=True), share)
