"""Drawing which items lack which modalities."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from dgmrec_pyg.errors import UserError, near_miss
from dgmrec_pyg.schema import ITEM, cold_items, missing_key, missing_mask, modality_names
from dgmrec_pyg.transforms.strata import draw_share, exact_counts

PATTERNS = ('protocol', 'independent', 'level')


class MissingModality(BaseTransform):
    r"""Hides modalities of a share of the items, by a pattern.

    A share :obj:`ratio` of the items lacks at least one of the :math:`M` modalities. How they lack them:

    * ``'protocol'``: the protocol of `"Disentangling and Generating Modalities for Recommendation in Missing Modality
      Scenarios" <https://arxiv.org/abs/2504.16352>`_. Items are divided into the coldest 70 %
      (:func:`~dgmrec_pyg.schema.cold_items`) and the rest, both into new and old ones where ``data['item'].is_new`` is
      there, and each group loses the same share. Of the items that lose something, :math:`1/M` lose all modalities; the
      others are shared out evenly to the :math:`2^M - 2` ways of losing some. So with two modalities a quarter lose the
      first, a quarter the second, half both; with three, each of the six partial ways gets 1/9 and losing all 3/9, as
      in the paper.
    * ``'independent'``: each modality is hidden for a share :math:`p` of the items, whatever the other modalities do.
      :math:`p = 1 - (1 - \textrm{ratio})^{1/M}`, so that the *expected* share of items that lack at least one is
      :obj:`ratio`; the number of items that lack a modality is the same for each.
    * ``'level'``: every item that loses something loses exactly :obj:`level` modalities, evenly over the ways to
      choose them.

    Numbers of items are exact, not drawn: they are rounded by largest remainders, at most one item off per group and
    way, and (except for ``'independent'``) :obj:`ratio` times the number of items is met overall. Ties of rounding are
    broken at random. What was missing before stays missing; :obj:`ratio` speaks of the new draw alone. Only the masks
    ``missing_<modality>`` change; features stay in place. The same seed draws the same masks, in whatever order the
    modalities were put into the graph.

    Popularity is ``data['item'].popularity`` where :class:`HoldOutNewItems` has stored it, else the number of training
    edges.

    Args:
        ratio (float): Share of items that lack at least one modality, between 0 and 1. (default: :obj:`0.6`)
        pattern (str): ``'protocol'``, ``'independent'`` or ``'level'``. (default: :obj:`'protocol'`)
        level (int, optional): Number of modalities that an item loses, for ``'level'`` only. (default: :obj:`None`)
        seed (int): Seed of the draw. (default: :obj:`0`)

    Raises:
        UserError: If an argument does not fit, the graph has no modality, has fewer than :obj:`level`, or its missing
            features were imputed already.
    """

    def __init__(self, ratio: float = 0.6, pattern: str = 'protocol', level: int | None = None, seed: int = 0) -> None:
        if not 0 <= ratio <= 1:
            raise UserError(f'MissingModality: ratio is {ratio}; give a share of the items, between 0 and 1')
        if pattern not in PATTERNS:
            raise UserError(f"MissingModality: unknown pattern '{pattern}'{near_miss(pattern, PATTERNS)} "
                            f"(known: {', '.join(PATTERNS)})")
        if (level is not None) != (pattern == 'level'):
            raise UserError(f"MissingModality: level is {level} with pattern '{pattern}'; "
                            "give a level with pattern 'level' and with no other")
        self.ratio = ratio
        self.pattern = pattern
        self.level = level
        self.seed = seed

    def forward(self, data: HeteroData) -> HeteroData:
        names = modality_names(data)
        self._check(data, names)
        generator = torch.Generator().manual_seed(self.seed)
        if self.pattern == 'independent':
            lacks = _independent(data[ITEM].num_nodes, len(names), self.ratio, generator)
        elif self.pattern == 'level':
            one_group = torch.zeros(data[ITEM].num_nodes, dtype=torch.long)
            ways = _ways(len(names))
            ways = ways[ways.sum(dim=1) == self.level]
            shares = torch.full((len(ways), ), 1 / len(ways), dtype=torch.double)
            lacks = _draw(one_group, self.ratio, ways, shares, generator)
        else:
            lacks = _draw(_groups(data), self.ratio, *_protocol_ways(len(names)), generator)
        for column, name in enumerate(names):
            mask = missing_mask(data, name)
            data[ITEM][missing_key(name)] = mask | lacks[:, column].to(mask.device)
        return data

    def _check(self, data: HeteroData, names: list[str]) -> None:
        """Raises a :class:`UserError` where the draw does not fit the graph."""
        if not names:
            raise UserError("MissingModality: data['item'] has no modality; give it features named x_<modality>")
        if self.level is not None and not 1 <= self.level <= len(names):
            raise UserError(f'MissingModality: level is {self.level}; give 1 to {len(names)}, '
                            f"as there are the modalities {', '.join(names)}")
        if 'imputed' in data[ITEM]:
            # A model does not impute again, so it would train on the features that are hidden here.
            raise UserError('MissingModality: missing features were imputed already; put it before ImputeMissing')

    def __repr__(self) -> str:
        level = '' if self.level is None else f', level={self.level}'
        return f"{self.__class__.__name__}(ratio={self.ratio}, pattern='{self.pattern}'{level}, seed={self.seed})"


def _ways(num_modalities: int) -> Tensor:
    """Returns all ways to lack at least one modality, bool ``[2^M - 1, M]``; the last lacks all."""
    return torch.tensor(list(product([False, True], repeat=num_modalities))[1:])


def _protocol_ways(num_modalities: int) -> tuple[Tensor, Tensor]:
    """Returns all ways to lack a modality and the protocol's share of each, float64 ``[2^M - 1]``."""
    ways = _ways(num_modalities)
    all_share = 1 / num_modalities
    shares = torch.full((len(ways), ), (1 - all_share) / max(len(ways) - 1, 1), dtype=torch.double)
    shares[-1] = all_share
    return ways, shares


def _groups(data: HeteroData) -> Tensor:
    """Numbers the protocol's groups (cold or warm, new or old), int64 ``[num_items]``."""
    cold = cold_items(data).cpu()
    is_new = data[ITEM].get('is_new', torch.zeros_like(cold)).cpu()
    return cold.long() + 2 * is_new.long()


def _independent(num_items: int, num_modalities: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Hides the same number of items in each modality, bool ``[num_items, M]``."""
    count = round(num_items * (1 - (1 - ratio)**(1 / num_modalities)))
    order = torch.rand(num_items, num_modalities, generator=generator).argsort(dim=0)
    return torch.zeros(num_items, num_modalities, dtype=torch.bool).scatter(0, order[:count], True)


def _draw(group: Tensor, ratio: float, ways: Tensor, shares: Tensor, generator: torch.Generator) -> Tensor:
    """Lets a share of every group lose modalities in the given ways.

    Args:
        group (torch.Tensor): The number of each item's group, int64 ``[num_items]``.
        ratio (float): Share of each group that loses something.
        ways (torch.Tensor): Modalities that each way loses, bool ``[N, M]``.
        shares (torch.Tensor): Share of each way among the items that lose something, float64 ``[N]``.
        generator (torch.Generator): Draws the items; lives on the CPU.

    Returns:
        torch.Tensor: What each item lacks, bool ``[num_items, M]``.
    """
    lacks = torch.zeros(group.numel(), ways.size(1), dtype=torch.bool)
    for items in draw_share(group, ratio, generator):
        lacks[items] = ways.repeat_interleave(exact_counts(items.numel() * shares, generator), dim=0)
    return lacks
