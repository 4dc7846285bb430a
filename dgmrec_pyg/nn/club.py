"""A sampled upper bound on mutual information."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, ReLU, Sequential, Tanh

from dgmrec_pyg.nn.checks import check_rows

_BLOCK_ROWS = {'cpu': 2**11, 'cuda': 2**16}


class CLUB(torch.nn.Module):
    r"""The sampled contrastive log-ratio upper bound from the `"CLUB: A Contrastive Log-ratio Upper Bound of Mutual
    Information" <https://arxiv.org/abs/2006.12013>`_ paper, with a diagonal Gaussian
    :math:`q(\mathbf{y} \mid \mathbf{x})`.

    :meth:`forward` is the bound that a model minimizes; :meth:`learning_loss` is what the estimator itself minimizes.

    Args:
        in_channels (int): Size of :math:`\mathbf{x}`.
        out_channels (int): Size of :math:`\mathbf{y}`.
        hidden_channels (int): Size of the hidden layers. (default: :obj:`32`)

    Raises:
        UserError: If a call is given something of another size.

    Shapes:
        - **x:** :math:`(N, C_{in})`, **y:** :math:`(N, C_{out})`
        - **output:** scalar
    """

    def __init__(self, in_channels: int, out_channels: int, hidden_channels: int = 32) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.mean = Sequential(Linear(in_channels, hidden_channels), ReLU(), Linear(hidden_channels, out_channels))
        self.log_variance = Sequential(Linear(in_channels, hidden_channels), ReLU(),
                                       Linear(hidden_channels, out_channels), Tanh())

    def forward(self, x: Tensor, y: Tensor, permutation: Tensor | None = None,
                generator: torch.Generator | None = None) -> Tensor:
        """Computes the bound, with shuffled rows of :obj:`y` as negative samples.

        Args:
            x (torch.Tensor): What is conditioned on.
            y (torch.Tensor): What is predicted.
            permutation (torch.Tensor, optional): The shuffle, int64 ``[N]``. (default: drawn)
            generator (torch.Generator, optional): Draws the shuffle. (default: the global one)
        """
        self._check(x, y)
        return self._row_bounds(x, y, y[self._shuffle(y, permutation, generator)]).mean()

    def bound(self, x: Tensor, y: Tensor, permutation: Tensor | None = None, generator: torch.Generator | None = None
              ) -> Tensor:
        """Computes the same bound with a gradient that reaches :obj:`x` and :obj:`y` alone, not the estimator. It is
        formed at once, block of rows by block of rows, and is all that is kept for the backward pass.

        Args:
            x (torch.Tensor): What is conditioned on.
            y (torch.Tensor): What is predicted.
            permutation (torch.Tensor, optional): The shuffle, int64 ``[N]``. (default: drawn)
            generator (torch.Generator, optional): Draws the shuffle. (default: the global one)
        """
        # Compiled, the estimator gets a gradient, too.
        if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)):
            return self(x, y, permutation, generator)
        self._check(x, y)
        return _Bound.apply(self, x, y, self._shuffle(y, permutation, generator))

    def _row_bounds(self, x: Tensor, y: Tensor, other: Tensor) -> Tensor:
        """The bound by rows, ``[N]``, with :obj:`other` as negative samples."""
        # (m - o)^2 - (m - y)^2 = (y - o) (2 m - y - o), which needs half as many temporaries.
        difference = (y - other) * (2.0 * self.mean(x) - y - other)
        return (difference * self.log_variance(x).neg().exp()).sum(dim=1) / 2.0

    @staticmethod
    def _shuffle(y: Tensor, permutation: Tensor | None, generator: torch.Generator | None) -> Tensor:
        if permutation is not None:
            return permutation
        return torch.randperm(y.size(0), generator=generator, device=y.device)

    def learning_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Computes the negative log-likelihood of :obj:`y` given :obj:`x` without its constants, a scalar."""
        self._check(x, y)
        mean, log_variance = self.mean(x), self.log_variance(x)
        return ((mean - y).square() * log_variance.neg().exp() + log_variance).sum(dim=1).mean()

    def _check(self, x: Tensor, y: Tensor) -> None:
        """A single column of y would be compared with every column of its prediction."""
        check_rows('x', x, self.in_channels)
        check_rows('y', y, self.out_channels, x.size(0))

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_channels}, {self.out_channels})'


class _Bound(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, estimator: CLUB, x: Tensor, y: Tensor, permutation: Tensor) -> Tensor:
        grad_x, grad_y, total = torch.empty_like(x), torch.zeros_like(y), y.new_zeros(())
        size = _BLOCK_ROWS.get(y.device.type, 2**11)
        for start in range(0, y.size(0), size):
            rows = slice(start, start + size)
            others = permutation[rows]
            with torch.enable_grad():
                leaves = [block.detach().requires_grad_() for block in (x[rows], y[rows], y[others])]
                bound = estimator._row_bounds(*leaves).sum()
                grad_x[rows], of_y, of_others = torch.autograd.grad(bound, leaves)
            grad_y[rows] += of_y
            grad_y.index_add_(0, others, of_others)
            total += bound.detach()
        ctx.save_for_backward(grad_x, grad_y)
        ctx.num_rows = y.size(0)
        return total / ctx.num_rows

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0] / ctx.num_rows
        return None, *(grad * scale if needed else None
                       for grad, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[1:3], strict=True)), None
