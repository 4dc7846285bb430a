"""Dividing items into groups, and drawing exact numbers of them."""

from __future__ import annotations

import torch
from torch import Tensor

from dgmrec_pyg.schema import COLD_SHARE


def cold_items(popularity: Tensor, generator: torch.Generator) -> Tensor:
    """Marks the coldest 70 % of the items, bool ``[num_items]``; ties at the border are broken at random.

    Args:
        popularity (torch.Tensor): Number of training interactions, ``[num_items]``.
        generator (torch.Generator): Breaks the ties; lives on the CPU.
    """
    num_items = popularity.numel()
    shuffled = torch.randperm(num_items, generator=generator)
    coldest = shuffled[popularity.cpu()[shuffled].argsort(stable=True)][:round(COLD_SHARE * num_items)]
    cold = torch.zeros(num_items, dtype=torch.bool)
    cold[coldest] = True
    return cold


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
