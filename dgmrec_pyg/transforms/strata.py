"""Drawing exact numbers of items from groups."""

from __future__ import annotations

import torch
from torch import Tensor


def exact_counts(quotas: Tensor, generator: torch.Generator) -> Tensor:
    """Rounds quotas to whole numbers that keep their (rounded) sum: the method of largest remainders.

    Every quota is rounded down; what is left of the sum goes, one each, to the largest remainders. Equal remainders
    are served in random order.

    Args:
        quotas (torch.Tensor): Numbers of zero or more, float64 ``[N]``.
        generator (torch.Generator): Breaks the ties; lives on the CPU.

    Returns:
        torch.Tensor: int64 ``[N]``, each less than one away from its quota.
    """
    quotas = quotas.round(decimals=9)  # 9 * (1 / 9) must not fall short of 1, and equal shares must tie
    counts = quotas.floor().long()
    left = round(quotas.sum().item()) - int(counts.sum())
    shuffled = torch.randperm(quotas.numel(), generator=generator)
    remainders = (quotas - counts).round(decimals=9)[shuffled]
    counts[shuffled[remainders.argsort(descending=True, stable=True)[:left]]] += 1
    return counts


def draw_share(group: Tensor, ratio: float, generator: torch.Generator) -> list[Tensor]:
    """Draws the same share of every group.

    Args:
        group (torch.Tensor): Number of each item's group, from 0, int64 ``[num_items]``.
        ratio (float): Share to draw. Numbers of items are rounded so that their sum is :obj:`ratio` times all items.
        generator (torch.Generator): Draws the items; lives on the CPU.

    Returns:
        list[torch.Tensor]: The drawn items of each group, in random order.
    """
    counts = exact_counts(ratio * group.bincount().double(), generator)
    drawn = []
    for number, count in enumerate(counts.tolist()):
        items = (group == number).nonzero().view(-1)
        drawn.append(items[torch.randperm(items.numel(), generator=generator)[:count]])
    return drawn
