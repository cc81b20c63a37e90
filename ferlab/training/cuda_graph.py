"""A training step on a GPU as one CUDA graph.

A step is about a thousand small kernels, and the processor takes longer to launch one than the GPU
to run it. They are recorded once, and from then on launched together. A recorded step reads and
writes the same tensors each time, so all that changes from step to step is copied into them: the
indices of the images, the factor of the learning rate, the weight of the EMA.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ferlab.training.trainer import Trainer

EAGER_STEPS = 3  # before a recording: libraries choose their kernels, optimizers make their state


class RecordedTraining:
    """Takes the place of `trainer.step` on a GPU: the same step, as a CUDA graph.

    Args:
        trainer: the training run.
    """

    def __init__(self, trainer: "Trainer"):
        self.trainer = trainer
        self.recorded: RecordedSteps | None = None
        self.kind: tuple = ()

    def __call__(self, batch: torch.Tensor) -> None:
        """Trains on the images `batch`, int64 `(batch,)`.

        Steps with other kernels than the last one, for images of another size say, are recorded
        anew.
        """
        trainer = self.trainer
        kind = (trainer.size, [p.requires_grad for p in trainer.model.parameters()])
        if self.kind != kind:
            self.recorded = None  # frees its memory
            self.recorded = RecordedSteps(self.step, trainer.generator, trainer.batch_size)
            self.kind = kind
        done = trainer.schedulers[0].last_epoch  # steps, in spite of the name
        weight = 1 - trainer.decay(done) if done else 1.0
        self.recorded(batch, trainer.factor(done), weight)
        for scheduler in trainer.schedulers:
            scheduler.step()
        trainer.ema.n_averaged += 1

    def step(self, batch: torch.Tensor, factor: torch.Tensor, weight: torch.Tensor) -> None:
        """Does what `trainer.step` does, all of it on the device.

        Args:
            batch: int64 `(batch,)`, the images.
            factor: float32 `()`, factor of the peak learning rate.
            weight: float32 `()`, weight of the new weights in their average.
        """
        trainer = self.trainer
        trainer.backward(batch)
        trained = [p for p in trainer.model.parameters() if p.grad is not None]
        before = [p.detach().clone() for p in trained]
        for optimizer, scheduler in zip(trainer.optimizers, trainer.schedulers, strict=True):
            for group, peak in zip(optimizer.param_groups, scheduler.base_lrs, strict=True):
                group["lr"] = peak
            optimizer.step()
        scale_change(trained, before, factor)
        average_in(
            [*trainer.ema.module.parameters(), *trainer.ema.module.buffers()],
            [*trainer.model.parameters(), *trainer.model.buffers()],
            weight,
        )


class RecordedSteps:
    """Runs `step`, a few times as it is, then as a CUDA graph of it.

    Args:
        step: what to run; is given the tensors below, always the same ones, and returns nothing.
        generator: what `step` draws random numbers from, besides torch's own generator.
        batch_size: images of a step.
    """

    def __init__(
        self,
        step: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None],
        generator: torch.Generator,
        batch_size: int,
    ):
        self.step, self.generator = step, generator
        self.batch = torch.zeros(batch_size, dtype=torch.int64, device=generator.device)
        self.factor, self.weight = (torch.ones((), device=generator.device) for _ in range(2))
        self.eager_steps = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: torch.Tensor, factor: float, weight: float) -> None:
        """Runs one step.

        Args:
            batch: int64 `(batch_size,)`, the images.
            factor: of the peak learning rate.
            weight: of the new weights in their moving average.
        """
        self.batch.copy_(batch)
        self.factor.fill_(factor)
        self.weight.fill_(weight)
        if self.eager_steps < EAGER_STEPS:
            side = torch.cuda.Stream()  # a recording cannot go on from work of the usual stream
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self.step(self.batch, self.factor, self.weight)
            torch.cuda.current_stream().wait_stream(side)
            self.eager_steps += 1
            return
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            self.graph.register_generator_state(self.generator)
            with torch.cuda.graph(self.graph):
                self.step(self.batch, self.factor, self.weight)
        self.graph.replay()


@torch.no_grad()
def scale_change(
    parameters: list[torch.Tensor], before: list[torch.Tensor], factor: torch.Tensor
) -> None:
    """Makes what was added to `parameters` since `before` `factor` times as large, in place.

    Every optimizer's step is proportional to its learning rate, so that this sets the rate after
    the step.
    """
    change = torch._foreach_sub(parameters, before)
    torch._foreach_mul_(change, factor - 1)
    torch._foreach_add_(parameters, change)


@torch.no_grad()
def average_in(
    averaged: list[torch.Tensor], current: list[torch.Tensor], weight: torch.Tensor
) -> None:
    """Moves `averaged` by the fraction `weight` to `current`, in place; integers are copied."""
    pairs = list(zip(averaged, current, strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    change = torch._foreach_sub([new for _, new in floats], [old for old, _ in floats])
    torch._foreach_mul_(change, weight)
    torch._foreach_add_([old for old, _ in floats], change)
    for old, new in pairs:
        if not old.is_floating_point():
            old.copy_(new)
