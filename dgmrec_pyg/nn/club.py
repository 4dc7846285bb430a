"""A sampled upper bound on mutual information."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Linear, ReLU, Sequential, Tanh

from dgmrec_pyg.nn.checks import check_rows


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
        if permutation is None:
            permutation = torch.randperm(y.size(0), generator=generator, device=y.device)
        mean, inverse_variance = self.mean(x), self.log_variance(x).neg().exp()
        positive = (mean - y).square()
        negative = (mean - y[permutation]).square()
        return ((negative - positive) * inverse_variance).sum(dim=1).mean() / 2.0

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
