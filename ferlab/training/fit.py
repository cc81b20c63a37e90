"""A training run from the first epoch to the last, with its checkpoints."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ferlab.commands import command_line
from ferlab.data.splits import Split
from ferlab.files import UserError
from ferlab.tensor_files import save_tensors
from ferlab.training.checkpoint import load_checkpoint, restore_training, training_state
from ferlab.training.distributed import from_rank_0, rank
from ferlab.training.recipe import Recipe
from ferlab.training.trainer import Trainer
from ferlab.training.weights import round_weights


@dataclass
class Fit:
    """What training produced.

    Attributes:
        model: the network with the weights of the best epoch, in eval mode.
        history: one dict an epoch.
        best_epoch: counted from 1.
        seconds: training time, validation included, over all resumed parts.
        images_per_second: in the training steps alone.
    """

    model: nn.Module
    history: list[dict]
    best_epoch: int
    seconds: float
    images_per_second: float


def stopped_run(checkpoint: Path) -> str | None:
    """Returns the warning that a new run replaces the checkpoint of an unfinished one, or None."""
    try:
        state = load_checkpoint(checkpoint)
    except UserError:  # there is none, or nothing that can be continued
        return None
    done, epochs = len(state["history"]), state["recipe"]["epochs"]
    if done >= epochs:
        return None
    return (
        f"{checkpoint} is of a run stopped after epoch {done} of {epochs}; it is overwritten after "
        "epoch 1 of this run; to continue it instead, stop now and add --resume to its command"
    )


def fit(
    model: nn.Module,
    train: Split,
    val: Split,
    recipe: Recipe,
    checkpoint: Path,
    resume: bool,
    quiet: bool,
    report: Callable[[str], None] = print,
    config: dict | None = None,
) -> Fit:
    """Trains `model` and keeps the weights of the epoch with the best validation accuracy.

    A checkpoint is written after every epoch; with `resume` the run goes on from it, and on one
    CPU machine ends bit for bit where an uninterrupted run ends. `config` are the hyperparameters
    of `model`: a checkpoint of others is refused.

    Raises:
        UserError: the loss is not finite, or the checkpoint is missing or does not fit.
        KeyboardInterrupt: on Ctrl-C; its text says how to continue.
    """
    trainer = Trainer(model, train, recipe, config)
    if resume:
        state = from_rank_0(load_checkpoint, checkpoint)
        same = restore_training(trainer, state, checkpoint)
        note = "" if same else "; made on another kind of device: other random numbers follow"
        report(f"resumed from {checkpoint} after epoch {len(trainer.history)}{note}")
    elif stopped := stopped_run(checkpoint):
        report(stopped)
    report(
        f"{'epoch':>7} {'lr':>9} {'train loss':>10} {'acc':>6} {'val loss':>10} {'acc':>6} {'s':>6}"
    )
    done = len(trainer.history)
    try:
        while done < recipe.epochs:
            row = trainer.epoch(val, quiet)
            if rank() == 0:
                save_tensors(training_state(trainer), checkpoint)
            done = row["epoch"]
            best = "  best" if trainer.best.get("epoch") == row["epoch"] else ""
            report(
                f"{row['epoch']:>3}/{recipe.epochs:<3} {row['lr']:9.2e} {row['train_loss']:10.4f} "
                f"{row['train_accuracy']:6.3f} {row['val_loss']:10.4f} {row['val_accuracy']:6.3f} "
                f"{row['seconds']:6.1f}{best}"
            )
    except KeyboardInterrupt as interrupt:
        hint = f"epoch {done} is in {checkpoint}; continue with: {command_line()} --resume"
        raise KeyboardInterrupt(hint if done else "no epoch done") from interrupt
    trainer.model.load_state_dict(trainer.best["weights"])
    round_weights(trainer.model)
    images = recipe.epochs * trainer.steps_an_epoch * trainer.batch_size
    return Fit(
        model=trainer.model.eval(),
        history=trainer.history,
        best_epoch=trainer.best["epoch"],
        seconds=sum(row["seconds"] for row in trainer.history),
        images_per_second=images / sum(row["train_seconds"] for row in trainer.history),
    )
