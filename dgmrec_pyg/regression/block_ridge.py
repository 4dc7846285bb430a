"""Ridge regression on blocks of columns, each with a weight of its own, all chosen from the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RELATIVE_WEIGHTS = (0.3, 1.0, 3.0)
"""Weights that a block may get relative to those chosen before it."""
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_LEAST_VARIANCE = 1e-12  # Of a block's columns, relative to their squares: below, they are constant up to rounding.


@dataclass(frozen=True)
class LinearMap:
    """A fitted regression.

    Attributes:
        coefficients (torch.Tensor): ``[P, F]``.
        intercept (torch.Tensor): ``[F]``.
    """

    coefficients: Tensor
    intercept: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Returns the guesses ``[N, F]`` of rows ``[N, P]``."""
        return x @ self.coefficients + self.intercept


@dataclass(frozen=True)
class Moments:
    """What ridge regression needs to know of the rows, in float64.

    Attributes:
        count (int): Number of rows.
        inputs (torch.Tensor): Products of centered inputs, ``[P, P]``.
        mixed (torch.Tensor): Products of centered inputs and targets, ``[P, F]``.
        target (float): Sum of the squares of centered targets.
        input_mean (torch.Tensor): ``[P]``.
        target_mean (torch.Tensor): ``[F]``.
    """

    count: int
    inputs: Tensor
    mixed: Tensor
    target: float
    input_mean: Tensor
    target_mean: Tensor


def moments(batches: Iterable[tuple[Tensor, Tensor]]) -> Moments:
    """Sums up rows, a batch at a time, so that they need not be in memory all at once.

    Args:
        batches (Iterable): Inputs ``[N, P]`` with their targets ``[N, F]``; at least one row in all.
    """
    count, square = 0, 0.0
    sums: list[Tensor] = []
    for x, y in batches:
        x, y = x.double(), y.double()
        new = [x.sum(dim=0), y.sum(dim=0), x.t() @ x, x.t() @ y]
        sums = [a + b for a, b in zip(sums, new, strict=True)] if sums else new
        count, square = count + len(x), square + float(y.square().sum())
    x_mean, y_mean = sums[0] / count, sums[1] / count
    return Moments(count, sums[2] - count * torch.outer(x_mean, x_mean), sums[3] - count * torch.outer(x_mean, y_mean),
                   max(square - count * float(y_mean.square().sum()), 0.0), x_mean, y_mean)


def fit_block_ridge(rows: Moments, sizes: Sequence[int]) -> LinearMap:
    r"""Fits, in closed form, the ridge regression

    .. math::
        \min_{\mathbf{C}, \mathbf{c}} \lVert \mathbf{Y} - \mathbf{D} \mathbf{C} - \mathbf{1} \mathbf{c}^\top
        \rVert_F^2 + \lambda \lVert \mathbf{C} \rVert_F^2 \qquad \mathbf{D} = [\sqrt{w_1} \mathbf{B}_1 \, \Vert \,
        \sqrt{w_2} \mathbf{B}_2 \, \Vert \ldots]

    Each block :math:`\mathbf{B}_b`, centered, is first divided by the root mean square length of its rows, so that
    neither its scale nor its width counts. Weights :math:`w_b` and penalty :math:`\lambda` are those of the least error
    by generalized cross-validation (`Golub, Heath and Wahba, 1979 <https://doi.org/10.1080/00401706.1979.10489751>`_),
    which is leaving out one row at a time, made independent of rotations:

    .. math::
        \frac{\lVert \mathbf{Y} - \hat{\mathbf{Y}} \rVert_F^2}{(1 - \mathrm{tr}(\mathbf{H}) / n)^2}
        \qquad \hat{\mathbf{Y}} = \mathbf{H} \mathbf{Y}

    It reads no row again, only the moments: one decomposition of a matrix of columns by columns gives the errors of all
    penalties. Blocks are taken greedily: the best one, then with it the best second one, in each of
    :obj:`RELATIVE_WEIGHTS`, and so on until none makes the error less.

    Args:
        rows (Moments): The rows to fit, two or more.
        sizes (Sequence): Number of columns of each block; the blocks stand side by side.
    """
    scale = _unit_scales(rows, sizes)
    block_of = torch.repeat_interleave(torch.tensor(sizes))
    weight, penalty = torch.zeros(len(sizes), dtype=torch.double), PENALTIES[-1]
    error = rows.target / (1 - 1 / rows.count)**2  # that of the mean
    while True:
        tried = [(*_least_error(rows, choice.sqrt()[block_of] * scale), choice) for choice in _extended(weight)]
        best = min(tried, key=lambda found: found[0], default=None)
        if best is None or best[0] >= error:
            break
        error, penalty, weight = best
    return _solve(rows, weight.sqrt()[block_of] * scale, penalty)


def fit_ridge(rows: Moments, sizes: Sequence[int]) -> LinearMap:
    """Fits the ridge regression of :func:`fit_block_ridge` with all blocks at weight 1: one decomposition, which finds
    the penalty, where a choice of blocks takes dozens.

    Args:
        rows (Moments): The rows to fit, two or more.
        sizes (Sequence): Number of columns of each block; the blocks stand side by side.
    """
    scale = _unit_scales(rows, sizes)
    return _solve(rows, scale, _least_error(rows, scale)[1])


def _unit_scales(rows: Moments, sizes: Sequence[int]) -> Tensor:
    """What each column is multiplied by, ``[P]``; zero in blocks that are constant."""
    scales = []
    for variance, mean in zip(rows.inputs.diagonal().split(list(sizes)), rows.input_mean.split(list(sizes)),
                              strict=True):
        total = float(variance.sum()) / rows.count
        constant = total <= _LEAST_VARIANCE * float(mean.square().sum()) or total <= 0
        scales.append(torch.full_like(mean, 0.0 if constant else total**-0.5))
    return torch.cat(scales)


def _extended(weight: Tensor) -> list[Tensor]:
    """The weights ``[B]`` with one more block."""
    choices = []
    for block in (weight == 0).nonzero().view(-1).tolist():
        for relative in RELATIVE_WEIGHTS if weight.any() else (1.0, ):
            choices.append(weight.clone())
            choices[-1][block] = relative
    return choices


def _least_error(rows: Moments, scale: Tensor) -> tuple[float, float]:
    """The least error by generalized cross-validation with columns so scaled, and the penalty that gives it."""
    used = scale.nonzero().view(-1)
    if used.numel() == 0:
        return float('inf'), PENALTIES[-1]
    inputs = (scale[used, None] * rows.inputs[used][:, used] * scale[used]).float()  # Quicker; a choice needs no more.
    values, vectors = torch.linalg.eigh(inputs)
    values = values.double().clamp(min=0)
    explained = (vectors.t() @ (scale[used, None] * rows.mixed[used]).float()).double().square().sum(dim=1)
    penalty = torch.tensor(PENALTIES, dtype=torch.double).unsqueeze(1)
    left = rows.target - (explained * (values + 2 * penalty) / (values + penalty).square()).sum(dim=1)
    freedom = 1 + (values / (values + penalty)).sum(dim=1)
    errors = left.clamp(min=0) / (1 - freedom / rows.count).clamp(min=1e-3).square()
    best = int(errors.argmin())
    return float(errors[best]), PENALTIES[best]


def _solve(rows: Moments, scale: Tensor, penalty: float) -> LinearMap:
    """The regression on columns so scaled."""
    used = scale.nonzero().view(-1)
    inputs = scale[used, None] * rows.inputs[used][:, used] * scale[used]
    factor = torch.linalg.cholesky(inputs + penalty * torch.eye(len(used), dtype=inputs.dtype))
    coefficients = torch.zeros_like(rows.mixed)
    coefficients[used] = scale[used, None] * torch.cholesky_solve(scale[used, None] * rows.mixed[used], factor)
    return LinearMap(coefficients.float(), (rows.target_mean - rows.input_mean @ coefficients).float())
