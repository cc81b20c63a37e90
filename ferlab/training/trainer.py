"""The state of a training run, and one epoch of it: the loop that every model shares."""

import math
import time
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from ferlab.data.augmentation import Augmentation
from ferlab.data.splits import Split
from ferlab.files import UserError
from ferlab.training.cuda_graph import RecordedTraining
from ferlab.training.device import autocast, seed_everything
from ferlab.training.distributed import (
    common_batch_size,
    parallel,
    rank,
    shard_of,
    sum_over_processes,
    with_synchronised_norms,
    world_size,
)
from ferlab.training.optimizers import averaging_decay, build_optimizers, moving_average
from ferlab.training.prediction import predict_logits
from ferlab.training.recipe import Recipe, expected_class, rows_and_targets, schedule
from ferlab.training.streaming import is_streamed, stream

RANK_SEED = 1_000_003  # between the seeds of two processes
CHECK_EVERY = 20  # steps between two checks of the loss: a check makes a GPU wait


class Trainer:
    """The state of a training run: everything that a checkpoint holds.

    Args:
        model: the network; moved to the device.
        train: the train split, on the device; its images may be on the CPU, see `streaming`.
        recipe: the settings.
        config: the network's hyperparameters, plain types; a checkpoint of others is refused.

    Raises:
        UserError: the recipe's targets are votes, and the split has none.
    """

    def __init__(self, model: nn.Module, train: Split, recipe: Recipe, config: dict | None = None):
        self.recipe, self.config = recipe, config or {}
        self.data = train.digest()  # once: it takes longer than an epoch on a GPU
        self.device = train.labels.device
        self.train = train
        self.rows, self.targets = rows_and_targets(train, recipe.targets)
        model = with_synchronised_norms(model.to(self.device))
        self.model = model.to(memory_format=torch.channels_last)
        self.generator = seed_everything(recipe.seed, self.device)
        self.batch_size = common_batch_size(recipe.batch_size, len(self.rows))
        self.shard = shard_of(self.batch_size)
        self.streamed = None  # the images of the current step, if they come from the CPU
        if is_streamed(self.train.images, self.device):
            images, count = self.train.images, self.shard.stop - self.shard.start
            self.streamed = images.new_empty((count, *images.shape[1:]), device=self.device)
        self.steps_an_epoch = len(self.rows) // self.batch_size
        self.precision = getattr(torch, recipe.precision)
        self.augment = Augmentation(**recipe.augmentation) if recipe.augmentation else None
        self.optimizers = build_optimizers(self.model, recipe)
        self.factor = schedule(recipe, self.steps_an_epoch)
        self.schedulers = [LambdaLR(optimizer, self.factor) for optimizer in self.optimizers]
        self.decay = averaging_decay(recipe.ema_epochs * self.steps_an_epoch)
        self.ema = AveragedModel(
            self.model, multi_avg_fn=moving_average(self.decay), use_buffers=True
        )
        counts = self.targets.sum(0)
        balanced = counts.sum() / (counts.clamp(min=1) * len(counts))
        self.class_weights = balanced if recipe.class_weights == "balanced" else None
        self.image_weights = self.targets @ balanced  # of each image, if the classes are balanced
        self.loss_sum = torch.zeros((), device=self.device)  # over the steps of the epoch
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)  # images, likewise
        # processes communicate within a step, which cannot be recorded
        recorded = self.device.type == "cuda" and world_size() == 1
        self.advance = RecordedTraining(self) if recorded else self.step
        self.history: list[dict] = []
        self.best: dict = {"val_accuracy": -1.0}
        self.seed_process()

    def seed_process(self) -> None:
        """Gives each process but the first random numbers of its own for dropout.

        Those of `generator` stay the same for all. A checkpoint holds those of the first process
        alone: a resumed run of several processes has other dropout than an uninterrupted one.
        """
        if rank():
            torch.manual_seed(self.recipe.seed + RANK_SEED * rank() + len(self.history))

    @property
    def size(self) -> int | None:
        """Height and width of the images in the next epoch; None for full size."""
        low_epochs = int(self.recipe.low_resolution_fraction * self.recipe.epochs)
        low = self.augment is not None and len(self.history) < low_epochs
        return self.recipe.low_resolution if low else None

    def order(self) -> torch.Tensor:
        """Returns int64 `(steps, batch)`: the images of each step of the next epoch."""
        count = self.steps_an_epoch * self.batch_size
        if self.recipe.oversample:
            drawn = torch.multinomial(
                self.image_weights[self.rows], count, replacement=True, generator=self.generator
            )
        else:
            drawn = torch.randperm(len(self.rows), generator=self.generator, device=self.device)
        return self.rows[drawn[:count]].view(self.steps_an_epoch, self.batch_size)

    def loss(self, logits: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        """Returns the cross-entropy of this process's shard: its sum, divided by the weight of the
        whole batch, times the number of processes.

        Averaged over the processes, it is the weighted mean over the whole batch.

        Args:
            logits: float32 `(shard, classes)`.
            batch: int64 `(batch,)`, the images of the step, of all processes.
        """
        smoothing = self.recipe.label_smoothing if self.recipe.targets == "labels" else 0.0
        total = F.cross_entropy(
            logits,
            self.targets[batch[self.shard]],
            weight=self.class_weights,
            label_smoothing=smoothing,
            reduction="sum",
        )
        weight = len(batch) if self.class_weights is None else self.image_weights[batch].sum()
        return total * world_size() / weight

    def backward(self, batch: torch.Tensor) -> None:
        """Computes the gradient of a step, and adds to the sums of the epoch.

        Args:
            batch: int64 `(batch,)`, the images of the step, of all processes.
        """
        rows = batch[self.shard]
        images = self.train.images[rows] if self.streamed is None else self.streamed
        if self.augment:
            start = self.shard.start
            images = self.augment(images, self.generator, self.size, len(batch), start)
        with autocast(self.device, self.precision):
            logits = self.network(images)
        loss = self.loss(logits.float(), batch)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.loss_sum += loss.detach()
        self.correct += (logits.argmax(1) == self.targets[rows].argmax(1)).sum()

    def batches(self) -> Iterator[torch.Tensor]:
        """Yields the rows of `order`; if images are streamed, with those of the step in place."""
        order = self.order()
        if self.streamed is None:
            yield from order
            return
        rows = order[:, self.shard].cpu()
        images = stream(self.train.images, rows, self.streamed)
        for batch, _ in zip(order, images, strict=True):
            yield batch

    def step(self, batch: torch.Tensor) -> None:
        """Trains on the images `batch`, int64 `(batch,)`."""
        self.backward(batch)
        for optimizer, scheduler in zip(self.optimizers, self.schedulers, strict=True):
            optimizer.step()
            scheduler.step()
        self.ema.update_parameters(self.model)

    def train_one_epoch(self, progress: tqdm) -> tuple[float, float]:
        """Runs one epoch; returns the mean loss and the accuracy on the augmented batches.

        Raises:
            UserError: the loss is no longer finite.
        """
        self.model.train()
        if self.recipe.frozen_epochs:
            self.model.freeze(len(self.history) < self.recipe.frozen_epochs)
        self.network = parallel(self.model)
        self.loss_sum.zero_()
        self.correct.zero_()
        for step, batch in enumerate(self.batches(), start=1):
            self.advance(batch)
            progress.update(len(batch))
            if step % CHECK_EVERY == 0 or step == self.steps_an_epoch:
                mean = self.loss_sum.item() / step
                progress.set_postfix(loss=f"{mean:.3f}", refresh=False)
                if not math.isfinite(mean):
                    raise UserError(
                        f"the loss is not finite in epoch {len(self.history) + 1}; "
                        f"lower --lr (it was {self.recipe.lr:g})"
                    )
        mean = sum_over_processes(self.loss_sum).item() / (self.steps_an_epoch * world_size())
        correct = sum_over_processes(self.correct).item()
        return mean, correct / (self.steps_an_epoch * self.batch_size)

    def validate(self, val: Split) -> tuple[float, float]:
        """Returns the cross-entropy with the targets and the accuracy of the averaged weights.

        With votes as targets, the accuracy is by the raters' majority.

        The images have the size of the epoch: a network is trained for one size at a time.
        """
        logits = predict_logits(self.ema.module, val.images, self.precision, self.device, self.size)
        rows, targets = rows_and_targets(val, self.recipe.targets)
        logits, targets = logits[rows], targets[rows]
        expected = expected_class(val, self.recipe.targets)[rows]
        decided = expected >= 0
        correct = (logits.argmax(1) == expected)[decided]
        return F.cross_entropy(logits, targets).item(), correct.float().mean().item()

    def epoch(self, val: Split, quiet: bool) -> dict:
        """Trains and validates one epoch; returns its row of the history."""
        number, start = len(self.history) + 1, time.perf_counter()
        full_size = self.size is None
        count = self.steps_an_epoch * self.batch_size
        with tqdm(
            total=count, unit="image", desc=f"epoch {number}", leave=False, disable=quiet
        ) as progress:
            train_loss, train_accuracy = self.train_one_epoch(progress)
        train_seconds = time.perf_counter() - start
        val_loss, val_accuracy = self.validate(val)
        row = {
            "epoch": number,
            "lr": self.schedulers[0].get_last_lr()[0],
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "train_seconds": train_seconds,
            "seconds": time.perf_counter() - start,
        }
        self.history.append(row)
        if full_size and val_accuracy > self.best["val_accuracy"]:
            weights = {k: v.clone() for k, v in self.ema.module.state_dict().items()}
            self.best = {"val_accuracy": val_accuracy, "epoch": number, "weights": weights}
        return row
