"""Losses whose gradient is computed together with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def gradient_at_once(loss: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Computes a loss and at once its gradient, which alone is kept for the backward pass: all that the loss has kept
    for it is free again. The gradient reaches the inputs, nothing else that the loss reads, such as parameters.

    Args:
        loss (Callable): Returns a scalar.
        *inputs (torch.Tensor): What it is given.
    """
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and any(x.requires_grad for x in inputs)):
        return loss(*inputs)
    return _GradientAtOnce.apply(loss, *inputs)


class _GradientAtOnce(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, loss: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in inputs]
            value = loss(*leaves)
            ctx.save_for_backward(*torch.autograd.grad(value, leaves))
        return value.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(grad * grad_outputs[0] for grad in ctx.saved_tensors)
