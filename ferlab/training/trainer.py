"""The state of a training run, and an epoch of it: the loop that every model shares."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from ferlab.data.augmentation import Augmentation
from ferlab.data.splits import Split, rows_of_part
from ferlab.files import UserError
from ferlab.training.cuda_graph import RecordedSteps, average_in, scale_change
from ferlab.training.device import autocast, random_state, restore_random_state, seed_everything
from ferlab.training.distillation import load_soft_labels, soft_targets
from ferlab.training.distributed import (
    parallel,
    part_of,
    rank,
    sum_over_processes,
    with_common_norms,
    world_size,
)
from ferlab.training.prediction import predict_logits
from ferlab.training.recipe import (
    Recipe,
    averaging_decay,
    build_optimizers,
    moving_average,
    schedule,
)

RANK_SEED = 1_000_003  # between the seeds of two processes
CHECK_EVERY = 20  # steps between looks at the loss: a look makes a GPU wait


def common_batch_size(asked: int, count: int) -> int:
    """Returns the images of a step, `asked` or all `count`, in equal parts for all processes.

    Raises:
        UserError: a part would have less than two, or not all the same number.
    """
    processes = world_size()
    if asked % processes:
        raise UserError(f"--batch-size {asked} does not divide among {processes} processes")
    size = min(asked, count // processes * processes)
    if size < 2 * processes:
        raise UserError(
            "a step needs two images or more in each process, for batch norm; raise --batch-size"
        )
    return size


def mixing(recipe: Recipe, classes: int) -> Callable | None:
    """Returns what makes a batch of mixed faces and their targets out of one; None for neither."""
    if not (recipe.mixup or recipe.cutmix):
        return None
    from torchvision.transforms.v2 import CutMix, MixUp, RandomChoice  # a second to import

    kinds = ((MixUp, recipe.mixup), (CutMix, recipe.cutmix))
    return RandomChoice([kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha])


def require_same(saved: dict, asked: dict, path: Path) -> None:
    """Checks that a run goes on as it began.

    Args:
        saved: hyperparameters in the checkpoint; what it does not know is not asked about.
        asked: those of the run that takes it up.
        path: of the checkpoint.

    Raises:
        UserError: one has another value.
    """
    for key, value in saved.items():
        if asked.get(key) != value:
            raise UserError(
                f"{path} was trained with {key} {value}, not {asked.get(key)}; "
                "repeat its flags with --resume, or start over without --resume"
            )


class Trainer:
    """The state of a training run: everything that a checkpoint holds.

    Args:
        model: the network; moved to the device.
        train: the train split, on the device.
        recipe: what to do.
        config: the network's hyperparameters, plain types; by them a checkpoint is known again.
    """

    def __init__(self, model: nn.Module, train: Split, recipe: Recipe, config: dict | None = None):
        self.recipe, self.config = recipe, config or {}
        self.data = train.digest()  # takes longer than an epoch on a GPU
        self.device = train.images.device
        targets = train.labels
        if recipe.soft_labels:
            probs = load_soft_labels(Path(recipe.soft_labels), train)
            targets = soft_targets(train, probs, recipe.soft_share)
        if recipe.left_out:
            learned = ~rows_of_part(recipe.left_out, len(train)).to(self.device)
            train, targets = train.take(learned), targets[learned]
        self.train, self.targets = train, targets
        model = with_common_norms(model.to(self.device))
        self.model = model.to(memory_format=torch.channels_last)
        self.generator = seed_everything(recipe.seed, self.device)
        self.batch_size = common_batch_size(recipe.batch_size, len(train))
        self.part = part_of(self.batch_size)
        self.steps_an_epoch = len(train) // self.batch_size
        self.precision = getattr(torch, recipe.precision)
        self.augment = Augmentation(**recipe.augmentation) if recipe.augmentation else None
        self.mix = mixing(recipe, len(train.class_names))
        self.optimizers = build_optimizers(self.model, recipe)
        self.factor = schedule(recipe, self.steps_an_epoch)
        self.schedulers = [LambdaLR(optimizer, self.factor) for optimizer in self.optimizers]
        self.decay = averaging_decay(recipe.ema_epochs * self.steps_an_epoch)
        self.ema = AveragedModel(
            self.model, multi_avg_fn=moving_average(self.decay), use_buffers=True
        )
        counts = train.class_counts().float()
        balanced = len(train) / (counts.clamp(min=1) * len(counts))
        self.draw_weights = balanced[train.labels] if recipe.oversample else None
        self.loss = nn.CrossEntropyLoss(
            weight=balanced if recipe.class_weights == "balanced" else None,
            label_smoothing=recipe.label_smoothing,
        )
        self.loss_sum = torch.zeros((), device=self.device)  # of the epoch's steps
        self.right = torch.zeros((), dtype=torch.int64, device=self.device)  # images, in the same
        self.recorded: RecordedSteps | None = None
        self.recorded_kind: tuple = ()
        # mixing draws its shares on the CPU, and processes talk to each other within a step
        self.records = self.device.type == "cuda" and world_size() == 1 and not self.mix
        self.history: list[dict] = []
        self.best: dict = {"val_accuracy": -1.0}
        self.part_ways()

    def state(self) -> dict:
        """Returns the whole loop state, in types that `torch.load(weights_only=True)` reads."""
        return {
            "recipe": asdict(self.recipe),
            "network": self.config,
            "data": self.data,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "random": random_state(self.generator),
            "history": self.history,
            "best": self.best,
        }

    def restore(self, state: dict, path: Path) -> None:
        """Takes up the state of a checkpoint.

        Raises:
            UserError: it is of another recipe, other data or another network.
        """
        require_same(state["recipe"], asdict(self.recipe), path)
        if state["data"] != self.data:
            raise UserError(f"{path} was trained on other data; start over without --resume")
        require_same(state.get("network", {}), self.config, path)  # older checkpoints lack it
        try:
            self.model.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
        except RuntimeError as error:
            raise UserError(f"{path} is of another network; start over without --resume") from error
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for scheduler, saved in zip(self.schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(saved)
        restore_random_state(state["random"], self.generator)
        self.history, self.best = state["history"], state["best"]
        self.part_ways()

    def part_ways(self) -> None:
        """Gives each process but the first random numbers of its own for dropout and mixup.

        Those of `generator` stay the same for all. A checkpoint holds the first process's, so that
        a resumed run of several processes differs from an undisturbed one as another seed does.
        """
        if rank():
            torch.manual_seed(self.recipe.seed + RANK_SEED * rank() + len(self.history))

    @property
    def small_size(self) -> int | None:
        """The faces' size in the next epoch, None for full size; the last epoch is always full."""
        small_epochs = int(self.recipe.small_share * self.recipe.epochs)
        small = self.augment is not None and len(self.history) < small_epochs
        return self.recipe.small_size if small else None

    @property
    def augmentation(self) -> Augmentation | None:
        """What varies the faces of the next epoch; in the last epochs nothing moves them."""
        still_epochs = int(self.recipe.still_share * self.recipe.epochs)
        still = self.augment and len(self.history) >= self.recipe.epochs - still_epochs
        return self.augment.still() if still else self.augment

    @property
    def asks_itself(self) -> bool:
        """Whether the averaged weights are asked in the next epoch (self-distillation)."""
        first = self.recipe.self_start * self.recipe.epochs
        return self.recipe.self_share > 0 and len(self.history) >= first

    @torch.no_grad()
    def opinion(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the probabilities that the averaged weights give: float32 `(N, classes)`."""
        self.ema.eval()
        with autocast(self.device, self.precision):
            return self.ema.module(images).float().softmax(1)

    def order(self) -> torch.Tensor:
        """Returns int64 `(steps, batch)`: the images of each step of the next epoch."""
        count = self.steps_an_epoch * self.batch_size
        if self.draw_weights is None:
            drawn = torch.randperm(len(self.train), generator=self.generator, device=self.device)
        else:
            drawn = torch.multinomial(
                self.draw_weights, count, replacement=True, generator=self.generator
            )
        return drawn[:count].view(self.steps_an_epoch, self.batch_size)

    def learn(self, batch: torch.Tensor) -> None:
        """Leaves the gradient of a step in the parameters, and adds to the epoch's sums.

        Args:
            batch: int64 `(batch,)`, the images of the step, of all processes.
        """
        rows = batch[self.part]
        images, targets = self.train.images[rows], self.targets[rows]
        if augmentation := self.augmentation:
            images = augmentation(
                images, self.generator, self.small_size, len(batch), self.part.start
            )
        if self.mix:
            images, targets = self.mix(images, targets)
        with autocast(self.device, self.precision):
            logits = self.network(images)
        logits = logits.float()
        loss = self.loss(logits, targets)
        if self.asks_itself:
            own = F.cross_entropy(logits, self.opinion(images))
            loss = torch.lerp(loss, own, self.recipe.self_share)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.loss_sum += loss.detach()
        heaviest = targets if targets.ndim == 1 else targets.argmax(1)
        self.right += (logits.argmax(1) == heaviest).sum()

    def step(self, batch: torch.Tensor) -> None:
        """Learns from the images `batch`, int64 `(batch,)`."""
        self.learn(batch)
        for optimizer, scheduler in zip(self.optimizers, self.schedulers, strict=True):
            optimizer.step()
            scheduler.step()
        self.ema.update_parameters(self.model)

    def recorded_step(self, batch: torch.Tensor) -> None:
        """Does what `step` does, as a CUDA graph.

        Steps of other kernels than the last one's, for faces of another size say, need another
        recording.
        """
        learning = [p.requires_grad for p in self.model.parameters()]
        kind = (self.small_size, self.augmentation, self.asks_itself, learning)
        if self.recorded_kind != kind:
            self.recorded = None  # frees its memory
            self.recorded = RecordedSteps(self.full_step, self.generator, self.batch_size)
            self.recorded_kind = kind
        done = self.schedulers[0].last_epoch  # steps, in spite of the name
        weight = 1 - self.decay(done) if done else 1.0
        self.recorded(batch, self.factor(done), weight)
        for scheduler in self.schedulers:
            scheduler.step()
        self.ema.n_averaged += 1

    def full_step(self, batch: torch.Tensor, factor: torch.Tensor, weight: torch.Tensor) -> None:
        """Does what `step` does, all of it on the device.

        Args:
            batch: int64 `(batch,)`, the images.
            factor: float32 `()`, of the peak learning rate.
            weight: float32 `()`, of the new weights in their average.
        """
        self.learn(batch)
        learning = [p for p in self.model.parameters() if p.grad is not None]
        before = [p.detach().clone() for p in learning]
        for optimizer, scheduler in zip(self.optimizers, self.schedulers, strict=True):
            for group, peak in zip(optimizer.param_groups, scheduler.base_lrs, strict=True):
                group["lr"] = peak
            optimizer.step()
        scale_change(learning, before, factor)
        average_in(
            [*self.ema.module.parameters(), *self.ema.module.buffers()],
            [*self.model.parameters(), *self.model.buffers()],
            weight,
        )

    def train_one_epoch(self, progress: tqdm) -> tuple[float, float]:
        """Runs one epoch; returns the mean loss and the accuracy on the augmented batches.

        Of faces mixed from two, or with soft labels, the heaviest label counts as the right one.

        Raises:
            UserError: the loss is no longer finite.
        """
        self.model.train()
        if self.recipe.frozen_epochs:
            self.model.freeze(len(self.history) < self.recipe.frozen_epochs)
        self.network = parallel(self.model)
        self.loss_sum.zero_()
        self.right.zero_()
        advance = self.recorded_step if self.records else self.step
        for step, batch in enumerate(self.order(), start=1):
            advance(batch)
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
        right = sum_over_processes(self.right).item()
        return mean, right / (self.steps_an_epoch * self.batch_size)

    def validate(self, val: Split) -> tuple[float, float]:
        """Returns the mean cross-entropy and the accuracy of the averaged weights on `val`.

        Faces have the size of the epoch: a network sees no other size well.
        """
        images = val.images
        if self.small_size:
            images = F.interpolate(images, self.small_size, mode="bilinear", align_corners=False)
        logits = predict_logits(self.ema.module, images, self.precision)
        loss = F.cross_entropy(logits, val.labels).item()
        return loss, (logits.argmax(1) == val.labels).float().mean().item()

    def epoch(self, val: Split, quiet: bool) -> dict:
        """Trains and validates one epoch; returns its row of the history."""
        number, start = len(self.history) + 1, time.perf_counter()
        full_size = self.small_size is None
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
