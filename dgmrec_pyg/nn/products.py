"""Products of large matrices.

On CPU, PyTorch leaves float32 products to MKL, which does not use AVX-512 on processors that are not Intel's. oneDNN,
which comes with PyTorch for its compiler and its convolutions, does, and is twice as fast there: 234 instead of 104
GFLOP/s on a core of an AMD EPYC, 2,048 x 2,048 x 2,048. But it makes code for each new shape, which takes longer than a
small product. So these functions are for shapes that come again: tables of all users or items, rows padded to a round
number.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_NARROW = 256  # columns


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Applies a linear layer to a table, :func:`torch.nn.functional.linear` with its gradients.

    Args:
        x (torch.Tensor): The table, ``[N, F]``.
        weight (torch.Tensor): Weight of the layer, ``[C, F]``.
        bias (torch.Tensor, optional): Bias of the layer, ``[C]``.
    """
    return _Linear.apply(x, weight, bias) if _by_onednn(x, weight) else F.linear(x, weight, bias)


def times_transposed(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Computes :math:`\mathbf{A} \mathbf{B}^\top + \mathbf{c}`, ``[N, M]``, without gradients.

    Args:
        a (torch.Tensor): ``[N, K]``.
        b (torch.Tensor): ``[M, K]``, best as rows or as the transposed view of rows.
        bias (torch.Tensor, optional): What is added to each row, ``[M]``.
    """
    if _by_onednn(a, b):
        # It reads a bias as if its numbers lay side by side.
        bias = None if bias is None else bias.contiguous()
        return torch.ops.mkldnn._linear_pointwise(a, b, bias, 'none', [], '')
    return F.linear(a, b, bias)


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    r"""Computes :math:`\mathbf{G}^\top \mathbf{X}`, ``[C, F]``, the gradient of a layer's weight, without gradients.

    Args:
        grad (torch.Tensor): Gradient of the layer's output, ``[N, C]``.
        x (torch.Tensor): The layer's input, ``[N, F]``.
    """
    if max(grad.size(1), x.size(1)) <= _NARROW:  # oneDNN would turn the long table round first, which takes as long.
        return grad.t() @ x
    return times_transposed(grad.t(), x.t())


def times_transposed_minus(a: Tensor, b: Tensor, bias: Tensor, other: Tensor) -> Tensor:
    r"""Computes :math:`\mathbf{A} \mathbf{B}^\top + \mathbf{c} - \mathbf{D}` in one pass, ``[N, M]``, without
    gradients.

    Args:
        a (torch.Tensor): ``[N, K]``.
        b (torch.Tensor): ``[M, K]``.
        bias (torch.Tensor): What is added to each row, ``[M]``.
        other (torch.Tensor): What is subtracted, ``[N, M]``.
    """
    if _by_onednn(a, b):
        return torch.ops.mkldnn._linear_pointwise(a, other.contiguous(), b, bias.contiguous(), 'sub')
    # The bias first: as an argument of addmm it would be spread over the result in a pass of its own.
    return torch.sub(bias, other).addmm_(a, b.t())


class _Linear(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return times_transposed(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (grad,) = ctx.saved_tensors, grad_outputs
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (times_transposed(grad, weight.t()) if for_x else None,
                weight_gradient(grad, x) if for_weight else None,
                grad.sum(dim=0) if for_bias else None)


def _by_onednn(a: Tensor, b: Tensor) -> bool:
    return (not torch.compiler.is_compiling() and a.device.type == 'cpu'
            and a.dtype == b.dtype == torch.float32 and a.numel() > 0 and b.numel() > 0
            and a.size(-1) == b.size(-1)  # Else F.linear says what does not fit.
            and _has_onednn())


@cache
def _has_onednn() -> bool:
    """Whether oneDNN's product is there and takes its arguments as they are given above. It is not one of PyTorch's
    public operators, so another version may have changed it; then plain products serve."""
    if not torch.backends.mkldnn.is_available():
        return False
    numbers = torch.arange(12, dtype=torch.float32, device='cpu')  # Whatever the defaults are at the first product.
    x, bias, other = numbers[:6].view(2, 3), numbers[6:8], numbers[8:].view(2, 2)
    try:
        product = torch.ops.mkldnn._linear_pointwise
        found = product(x, x, bias, 'none', [], ''), product(x, other, x, bias, 'sub')
    except (AttributeError, RuntimeError, TypeError):
        return False
    exact = x @ x.t() + bias
    return found[0].equal(exact) and found[1].equal(exact - other)
