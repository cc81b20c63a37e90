"""Several processes, on one machine or many, that train one model together under torchrun.

The batch of each step is sharded over the processes (data parallelism): all draw the same random
numbers for the whole batch, each computes the gradient of its shard, and the gradients are averaged
(all-reduce). Without torchrun there is one process, and nothing here has an effect.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ferlab.files import UserError


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the process group that torchrun's environment variables describe.

    Args:
        device: where this process computes; the backend is nccl on GPUs, else gloo.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield
    distributed.destroy_process_group()  # after an error torchrun ends the other processes


def rank() -> int:
    """Returns this process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Returns how many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


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
        rest = "raise --batch-size" if asked < 2 * processes else f"train has {count:,} in all"
        raise UserError(f"a step needs two images or more in each process, for batch norm; {rest}")
    return size


def shard_of(count: int) -> slice:
    """Returns the rows of `count` that are this process's shard; sizes differ by at most one."""
    return slice(count * rank() // world_size(), count * (rank() + 1) // world_size())


def all_gathered(shard: torch.Tensor, count: int) -> torch.Tensor:
    """Returns the rows of all processes, `count` in all, given this process's `shard` of them."""
    if world_size() == 1:
        return shard
    rows = shard.new_zeros(count, *shard.shape[1:])
    rows[shard_of(count)] = shard
    return sum_over_processes(rows)


def from_rank_0(compute: Callable, *args):
    """Broadcasts what `compute(*args)` returns, or raises, in the first process."""
    if world_size() == 1:
        return compute(*args)
    outcome = [None, None]
    if rank() == 0:
        try:
            outcome[0] = compute(*args)
        except Exception as error:
            outcome[1] = error
    distributed.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def sum_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """Sums `tensor` over the processes, in place (all-reduce)."""
    if world_size() > 1:
        distributed.all_reduce(tensor)
    return tensor


def parallel(model: nn.Module) -> nn.Module:
    """Returns `model`; if there are several processes, wrapped so that gradients are averaged.

    Parameters that need no gradient must not need one later.
    """
    if world_size() == 1:
        return model
    return DistributedDataParallel(model)


def with_synchronised_norms(model: nn.Module) -> nn.Module:
    """Returns `model` with batch norms over the whole batch, not this process's shard alone.

    The names and shapes of the weights do not change.
    """
    if world_size() == 1:
        return model
    if next(model.parameters()).device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.__class__ = SynchronisedBatchNorm
    return model


class SynchronisedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the shards of all processes, on CPUs.

    `torch.nn.SyncBatchNorm` runs on GPUs alone. With it missing, training in several processes on
    CPUs would differ from training in one, and the equality that tests check there would not hold.
    All shards must have the same number of rows. Maps `(N, C)` or `(N, C, H, W)` to the same shape.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Normalises each channel; in eval mode as any batch norm."""
        if not self.training:
            return super().forward(maps)
        count = maps.numel() // maps.shape[1] * world_size()
        normalised, mean, variance = _Normalise.apply(maps, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        return normalised

    def _check_input_dim(self, maps: torch.Tensor) -> None:
        """Takes any number of dimensions."""


class _Normalise(torch.autograd.Function):
    """Batch norm by the moments of all processes, with torch's kernels for given moments.

    The moments depend on the maps too, which those kernels ignore; the backward pass therefore
    subtracts the projections of the gradient on 1 and on the normalised maps (arXiv 1502.03167,
    section 3).
    """

    @staticmethod
    def forward(context, maps, weight, bias, eps: float):
        unused = torch.zeros_like(weight)  # running moments; their type is that of the result
        mean, variance = torch.ops.aten.batch_norm_update_stats(maps, unused, unused, 0.0)
        mean, square = sum_over_processes(torch.stack([mean, variance + mean**2])) / world_size()
        variance = square - mean**2
        context.save_for_backward(maps, weight, mean, variance)
        context.eps = eps
        context.mark_non_differentiable(mean, variance)
        normalised = torch.nn.functional.batch_norm(maps, mean, variance, weight, bias, eps=eps)
        return normalised, mean, variance

    @staticmethod
    def backward(context, gradient, *_):
        maps, weight, mean, variance = context.saved_tensors
        into_maps, into_weight, into_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, maps, weight, mean, variance, None, None, False, context.eps, [True] * 3
        )
        common = sum_over_processes(torch.stack([into_weight, into_bias]))
        common /= maps.numel() // maps.shape[1] * world_size()
        deviation = torch.rsqrt(variance + context.eps)
        slope = weight * deviation**2 * common[0]
        shift = weight * deviation * common[1] - slope * mean
        shape = (1, -1) + (1,) * (maps.ndim - 2)
        slope, shift = (each.view(shape).to(maps.dtype) for each in (slope, shift))
        return into_maps.sub_(torch.addcmul(shift, maps, slope)), into_weight, into_bias, None
