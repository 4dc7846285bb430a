"""Making wide features narrow, once, before training."""

from __future__ import annotations

import torch
from torch import Tensor

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.nn.checks import check_rows

_EXTRA_COLUMNS = 16  # What the randomized decomposition computes beyond the columns that are kept.


class FeatureProjection(torch.nn.Module):
    r"""Represents features by their leading singular directions, and takes them back.

    .. math::
        \mathbf{Z} = \mathbf{X} \mathbf{V} \qquad \hat{\mathbf{X}} = \mathbf{Z} \mathbf{V}^\top

    with the first right singular vectors :math:`\mathbf{V}` of the features, which are not centered: lengths and
    cosines of items stay what they are, up to what is cut off.

    Args:
        x (torch.Tensor): Observed features, finite, ``[N, F]``.
        channels (int): Number of directions to keep, at most; there are never more than rows or columns.

    Raises:
        UserError: If the features are not finite, or a call is given something of another size.

    Shapes:
        - **input:** :math:`(I, F)`
        - **output:** :math:`(I, C)` with :math:`C = \min(channels, F, N)`, at least 1
    """

    basis: Tensor

    def __init__(self, x: Tensor, channels: int) -> None:
        super().__init__()
        check_rows('features', x)
        if not x.isfinite().all():
            raise UserError('features must be finite; leave out the rows of missing items')
        self.register_buffer('basis', _leading_directions(x, max(min(channels, *x.shape), 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the narrow form of features."""
        check_rows('features', x, self.basis.size(0))
        return x @ self.basis

    def inverse(self, z: Tensor) -> Tensor:
        """Returns features ``[I, F]`` of the narrow form ``[I, C]``."""
        check_rows('narrow features', z, self.basis.size(1))
        return z @ self.basis.t()

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.basis.size(0)}, {self.basis.size(1)})'


def _leading_directions(x: Tensor, channels: int) -> Tensor:
    """The first right singular vectors, ``[F, C]``; the same for the same features, whatever was drawn before."""
    if x.size(0) == 0:
        return torch.eye(x.size(1), channels, dtype=x.dtype, device=x.device)
    with torch.random.fork_rng(devices=[]):  # torch.svd_lowrank takes no generator.
        torch.manual_seed(0)  # noqa: TID251
        directions = torch.svd_lowrank(x.cpu(), min(channels + _EXTRA_COLUMNS, *x.shape), niter=2)[2][:, :channels]
    return directions.to(x.device)
