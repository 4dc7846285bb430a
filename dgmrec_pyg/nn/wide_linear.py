"""Linear layers beside a wide, trainable feature table.

A table of thousands of columns is by far the largest tensor of a model. Written with plain operations, a step makes
half a dozen temporaries of its size; here the only one is the table's gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dgmrec_pyg.nn.products import linear, times_transposed, times_transposed_minus, weight_gradient

_BLOCK_ELEMENTS = {'cpu': 2**20, 'cuda': 2**24}  # On CPU a block stays in the cache; a GPU wants few, large kernels.


def linear_and_features(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Applies a linear layer and passes its input on.

    Whoever reads the features as passed on sends their gradient back through here, where the gradient of the layer is
    added to it in place. Without that, both would exist at once.

    Args:
        x (torch.Tensor): Features, ``[N, F]``.
        weight (torch.Tensor): Weight of the layer, ``[C, F]``.
        bias (torch.Tensor): Bias of the layer, ``[C]``.

    Returns:
        tuple: The output of the layer ``[N, C]``, and the features.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return linear(x, weight, bias), x
    return _LinearAndFeatures.apply(x, weight, bias)


class _LinearAndFeatures(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        return times_transposed(x, weight, bias), x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_features: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return grad_features, None, None
        x, weight = ctx.saved_tensors
        if grad_features is None:
            grad_features = times_transposed(grad, weight.t())
        else:  # It comes from linear_mse_loss, or was summed up by autograd: nobody else holds it.
            for rows in _blocks(grad_features):
                grad_features[rows] += times_transposed(grad[rows], weight.t())
        return grad_features, weight_gradient(grad, x), grad.sum(dim=0)


def linear_mse_loss(x: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    r"""Computes the mean squared error :math:`\mathrm{mean}((\mathbf{X} \mathbf{W}^\top + \mathbf{b} -
    \mathbf{T})^2)` of a linear layer whose output is wide, in blocks of rows.

    The gradients are formed while a block of errors is at hand; the errors themselves become the gradient of the
    target, where it needs one. That buffer is used up by the backward pass, so that a second one (``retain_graph``)
    is refused by autograd.

    Args:
        x (torch.Tensor): Input of the layer, ``[N, C]``.
        weight (torch.Tensor): Weight of the layer, ``[F, C]``.
        bias (torch.Tensor): Bias of the layer, ``[F]``.
        target (torch.Tensor): What the output is compared with, ``[N, F]``.

    Returns:
        torch.Tensor: The loss, a scalar; 0 where there are no rows.
    """
    return _LinearMSE.apply(x, weight, bias, target)


class _LinearMSE(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
        for_x, for_weight, for_bias, for_target = ctx.needs_input_grad
        grad_x = torch.empty_like(x) if for_x else None
        # Transposed: errors, which are wide, are best read as rows.
        grad_weight = torch.zeros_like(weight.t()) if for_weight else None
        grad_bias = torch.zeros_like(bias) if for_bias else None
        grad_target = torch.empty_like(target) if for_target else None
        total = target.new_zeros(())
        for rows in _blocks(target):
            error = times_transposed_minus(x[rows], weight, bias, target[rows])
            total += torch.linalg.vecdot(error, error).sum()
            if grad_x is not None:
                grad_x[rows] = times_transposed(error, weight.t())
            if grad_weight is not None:
                grad_weight += times_transposed(x[rows].t(), error.t())
            if grad_bias is not None:
                grad_bias += error.sum(dim=0)
            if grad_target is not None:
                grad_target[rows] = error
        ctx.numel = max(target.numel(), 1)
        ctx.save_for_backward(grad_x, None if grad_weight is None else grad_weight.t(), grad_bias, grad_target)
        return total / ctx.numel

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0] * (2.0 / ctx.numel)
        *grads, grad_target = ctx.saved_tensors
        return (*(None if grad is None else grad * scale for grad in grads),
                None if grad_target is None else grad_target.mul_(-scale))


def _blocks(table: Tensor) -> Iterator[slice]:
    """Cuts the rows of a table into blocks."""
    size = max(_BLOCK_ELEMENTS.get(table.device.type, 2**19) // max(table.size(1), 1), 1)
    for start in range(0, table.size(0), size):
        yield slice(start, start + size)
