"""The adversarial temperature of ACW-SKD: learnable, bounded, and moved against the student."""

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


def adversary_strength(epoch: int, num_epochs: int) -> float:
    """lambda: 0 to 1 along a half cosine in the first 1/24 of the training, then 1 (CTKD's code: 10 of 240 epochs)."""
    rise = max(1, round(num_epochs / 24))
    return 0.5 * (1 - math.cos(math.pi * min(1.0, epoch / rise)))


class ReverseGradient(torch.autograd.Function):
    """Identity forward, ``-strength * gradient`` backward."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor, strength: Tensor) -> Tensor:
        ctx.save_for_backward(strength)
        return value.clone()

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (strength,) = ctx.saved_tensors
        return -strength * gradient, None


class AdversarialTemperature(nn.Module):
    """``tau = tau_min + tau_range * sigmoid(R(theta))``, R reversing the gradient with strength lambda.

    The student lowers the loss, theta raises it: CTKD (arXiv 2211.16231, closest published; the paper names an
    adversarial temperature loss with a learnable temperature, its formula is not known). theta starts at 1. Ours are
    the bounds: CTKD's tau in (1, 21) drives tau^2 KL to its bound and ruins training from scratch, so the default is
    tau in (1, 5), starting at 3.92. theta wants momentum 0 and weight decay 0 (ours): momentum 0.99 multiplies its
    steps by 100, decay drags tau to the middle.

    Args:
        tau_min: lower bound, above 0.
        tau_range: upper bound minus lower bound.
        adversarial: False fixes tau at its starting value, without a parameter.

    Raises:
        ValueError: for a lower bound or range that is not above 0.
    """

    def __init__(self, *, tau_min: float = 1.0, tau_range: float = 4.0, adversarial: bool = True):
        super().__init__()
        if tau_min <= 0 or tau_range <= 0:
            raise ValueError(f"tau_min and tau_range must be above 0, got {tau_min} and {tau_range}")
        self.tau_min = tau_min
        self.tau_range = tau_range
        if adversarial:
            self.theta = nn.Parameter(torch.ones(()))
        else:
            self.register_buffer("theta", torch.ones(()), persistent=False)
        # a tensor, so that a new epoch's value neither recompiles a compiled graph nor waits for the device
        self.register_buffer("strength", torch.zeros(()), persistent=False)

    def extra_repr(self) -> str:
        adversarial = isinstance(self.theta, nn.Parameter)
        return f"tau_min={self.tau_min}, tau_range={self.tau_range}, adversarial={adversarial}"

    def set_epoch(self, epoch: int, num_epochs: int) -> None:
        self.strength.fill_(adversary_strength(epoch, num_epochs))

    def forward(self) -> Tensor:
        """tau: scalar in ``[tau_min, tau_min + tau_range]``."""
        return self.tau_min + self.tau_range * ReverseGradient.apply(self.theta, self.strength).sigmoid()
