"""Linear layers beside a wide, trainable feature table.

A table of thousands of columns is by far the largest tensor of a model. Written with plain operations, a step makes
half a dozen temporaries of its size; here the only one is the table's gradient, and none where somebody takes that
block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dgmrec_pyg.nn.products import linear, times_transposed, times_transposed_minus, weight_gradient

TakeGradient = Callable[[Iterator[tuple[slice, Tensor]]], None]
"""Takes a gradient as blocks of rows, each of which is made when it is asked for."""

_BLOCK_ELEMENTS = {'cpu': 2**20, 'cuda': 2**24}  # On CPU a block stays in the cache; a GPU wants few, large kernels.


def linear_and_features(x: Tensor, weight: Tensor, bias: Tensor, take: TakeGradient | None = None
                        ) -> tuple[Tensor, Tensor]:
    """Applies a linear layer and passes its input on.

    Whoever reads the features as passed on sends their gradient back through here, where that of the layer is added to
    it in place. Without that, both would exist at once. :func:`linear_mse_loss` does not even send a gradient, but what
    it can be computed from: there is one of :obj:`x` then, and none of the features as passed on.

    Args:
        x (torch.Tensor): Features, ``[N, F]``.
        weight (torch.Tensor): Weight of the layer, ``[C, F]``.
        bias (torch.Tensor): Bias of the layer, ``[C]``.
        take (Callable, optional): Is handed the gradient of :obj:`x` in the backward pass, and :obj:`x` itself has
            none. It may change the rows of :obj:`x` that it has got a block for, if nothing else of the same backward
            pass reads them. (default: :obj:`None`)

    Returns:
        tuple: The output of the layer ``[N, C]``, and the features.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return linear(x, weight, bias), x
    return _LinearAndFeatures.apply(x, weight, bias, None if torch.compiler.is_compiling() else take)


class _LinearAndFeatures(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, take: TakeGradient | None) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        ctx.take = take
        ctx.residuals = {}
        return times_transposed(x, weight, bias), x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_features: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        residuals = [] if torch.compiler.is_compiling() else ctx.residuals.pop(_backward_pass(), [])
        # First: whoever takes the gradient may change the features.
        of_layer = (None, None) if grad is None else (weight_gradient(grad, x), grad.sum(dim=0))
        if grad is None and not residuals and (grad_features is None or ctx.take is None):
            return grad_features, *of_layer, None
        blocks = _gradient_blocks(x, weight, grad, grad_features, residuals)
        if ctx.take is not None:
            ctx.take(blocks)
            return None, *of_layer, None
        total = torch.empty_like(x) if grad_features is None else grad_features
        for rows, block in blocks:
            if grad_features is None:  # Else it is a part of the total already.
                total[rows] = block
        return total, *of_layer, None


class _Residual(NamedTuple):
    """What the gradient of linear_mse_loss's target is computed from: the layer, or its errors by the blocks' first
    rows."""

    layer: tuple[Tensor, ...]
    errors: dict[int, Tensor]
    scale: Tensor

    def gradient(self, target: Tensor, rows: slice) -> Tensor:
        """The gradient of some rows of the target."""
        if self.errors:
            return self.errors[rows.start] * -self.scale
        x, weight, bias = self.layer
        return times_transposed_minus(x[rows], weight, bias, target[rows]).mul_(-self.scale)


def _gradient_blocks(x: Tensor, weight: Tensor, grad: Tensor | None, grad_features: Tensor | None,
                     residuals: list[_Residual]) -> Iterator[tuple[slice, Tensor]]:
    """The gradient of features that a layer reads and passes on. What comes from those whom they are passed on to is
    added to in place: autograd has summed it up, or another function made it, and nobody else holds it."""
    for rows in _blocks(x):
        parts = [] if grad_features is None else [grad_features[rows]]
        if grad is not None:
            parts.append(times_transposed(grad[rows], weight.t()))
        yield rows, reduce(Tensor.add_, [*parts, *(residual.gradient(x, rows) for residual in residuals)])


def linear_mse_loss(x: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    r"""Computes the mean squared error :math:`\mathrm{mean}((\mathbf{X} \mathbf{W}^\top + \mathbf{b} -
    \mathbf{T})^2)` of a linear layer whose output is wide, in blocks of rows.

    The gradients of the layer are formed while a block of errors is at hand. For that of the target, where it needs
    one, the errors are computed once more in the backward pass, unless they are as small as what they are made of.

    Args:
        x (torch.Tensor): Input of the layer, ``[N, C]``.
        weight (torch.Tensor): Weight of the layer, ``[F, C]``.
        bias (torch.Tensor): Bias of the layer, ``[F]``.
        target (torch.Tensor): What the output is compared with, ``[N, F]``; best as :func:`linear_and_features` passes
            it on.

    Returns:
        torch.Tensor: The loss, a scalar; 0 where there are no rows.
    """
    passed_on = not torch.compiler.is_compiling() and target.output_nr == 1 and hasattr(target.grad_fn, 'residuals')
    return _LinearMSE.apply(x, weight, bias, target, target.grad_fn if passed_on else None)


class _LinearMSE(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, target: Tensor, passed_by: Any) -> Tensor:
        for_x, for_weight, for_bias, for_target, _ = ctx.needs_input_grad
        grad_x = torch.empty_like(x) if for_x else None
        # Transposed: errors, which are wide, are best read as rows.
        grad_weight = torch.zeros_like(weight.t()) if for_weight else None
        grad_bias = torch.zeros_like(bias) if for_bias else None
        keeps_errors = for_target and target.size(1) <= x.size(1)
        errors: dict[int, Tensor] = {}
        total = target.new_zeros(())
        for rows in _blocks(target):
            error = times_transposed_minus(x[rows], weight, bias, target[rows])
            # By rows: as exact as products that are summed up, without a table of these.
            total += torch.linalg.vector_norm(error, dim=1).square().sum()
            if grad_x is not None:
                grad_x[rows] = times_transposed(error, weight.t())
            if grad_weight is not None:
                grad_weight += weight_gradient(x[rows], error)
            if grad_bias is not None:
                grad_bias += error.sum(dim=0)
            if keeps_errors:
                errors[rows.start] = error
            del error  # Before there is the next one.
        ctx.numel, ctx.passed_by = max(target.numel(), 1), passed_by
        ctx.first_rows = tuple(errors)
        ctx.save_for_backward(grad_x, None if grad_weight is None else grad_weight.t(), grad_bias,
                              target if for_target and passed_by is None else None,
                              *(errors.values() if keeps_errors else (x, weight, bias) if for_target else ()))
        return total / ctx.numel

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0] * (2.0 / ctx.numel)
        of_x, of_weight, of_bias, target, *others = ctx.saved_tensors
        grads = [None if grad is None else grad * scale for grad in (of_x, of_weight, of_bias)]
        if not ctx.needs_input_grad[3]:
            return *grads, None, None
        errors = dict(zip(ctx.first_rows, others, strict=True)) if ctx.first_rows else {}
        # Detached: its history may lead back to the node that keeps it.
        residual = _Residual(() if errors else tuple(x.detach() for x in others), errors, scale)
        if ctx.passed_by is not None:
            ctx.passed_by.residuals.setdefault(_backward_pass(), []).append(residual)
            return *grads, None, None
        grad_target = torch.empty_like(target)
        for rows in _blocks(target):
            grad_target[rows] = residual.gradient(target, rows)
        return *grads, grad_target, None


def _backward_pass() -> int:
    """The number of the backward pass in progress: one that does not reach the features leaves nothing for the next."""
    return torch._C._current_graph_task_id()


def _blocks(table: Tensor) -> Iterator[slice]:
    """Cuts the rows of a table into blocks."""
    size = max(_BLOCK_ELEMENTS.get(table.device.type, 2**19) // max(table.size(1), 1), 1)
    for start in range(0, table.size(0), size):
        yield slice(start, start + size)
