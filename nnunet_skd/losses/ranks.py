"""Sums over the processes of a distributed training."""

from torch import Tensor, distributed


def sum_over_ranks(local: Tensor) -> Tensor:
    """The sum of all ranks' tensors; without DDP the tensor as it is.

    Its gradient is that of the rank's own part, times the number of ranks, because DDP takes the mean of the ranks'
    gradients: together that is the gradient of one loss over all patches, as nnU-Net's batch Dice has it.
    """
    if not distributed.is_initialized():
        return local
    total = local.detach().clone()
    distributed.all_reduce(total)
    return total + distributed.get_world_size() * (local - local.detach())
