"""Optimal transport between many rows and a few."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-30
"""Least sum that is divided by."""


@torch.no_grad()
def sinkhorn_plan(cost: Tensor, temperature: float = 0.1, num_iterations: int = 10,
                  ignored: Tensor | None = None) -> Tensor:
    r"""Spreads rows over columns so that the cost is low and all columns receive alike, from the `"Sinkhorn Distances:
    Lightspeed Computation of Optimal Transport" <https://arxiv.org/abs/1306.0895>`_ paper (algorithm 1).

    Args:
        cost (torch.Tensor): Cost of each pair, ``[..., N, K]``.
        temperature (float): Weight of the entropy; small values spread a row over few columns. (default: :obj:`0.1`)
        num_iterations (int): How often columns and rows are scaled in turn. (default: :obj:`10`)
        ignored (torch.Tensor, optional): Rows that are spread, but that columns do not count, bool ``[N]``.
            (default: none)

    Returns:
        torch.Tensor: The share of each row that goes to each column, ``[..., N, K]``. Rows sum to 1; columns, over the
        rows that count, come the closer to equal sums the more iterations there are. It carries no gradient.
    """
    # A row's scale takes back what is subtracted here, which keeps its largest value at 1 for any temperature.
    kernel = ((cost.amin(dim=-1, keepdim=True) - cost) / temperature).exp_()
    row_scale = torch.ones_like(kernel[..., :1])
    counted = row_scale if ignored is None else (~ignored).to(cost.dtype).unsqueeze(1)
    share = counted.sum(dim=-2, keepdim=True) / cost.size(-1)
    for _ in range(num_iterations):
        column_scale = share / (kernel.transpose(-1, -2) @ (row_scale * counted)).clamp_(min=TINY)
        row_scale = (kernel @ column_scale).clamp_(min=TINY).reciprocal_()
    return kernel * row_scale * column_scale.transpose(-1, -2)
