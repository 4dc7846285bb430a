"""The new-item setting: items that are in the test set and nowhere else."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.schema import INTERACTS, ITEM, cold_items, item_popularity, set_training_edges, training_edges
from dgmrec_pyg.transforms.strata import draw_share


class HoldOutNewItems(BaseTransform):
    r"""Draws new items and moves all their interactions to the test labels.

    The new-item setting of `"Disentangling and Generating Modalities for Recommendation in Missing Modality
    Scenarios" <https://arxiv.org/abs/2504.16352>`_: a share :obj:`ratio` of the coldest 70 % of the items
    (:func:`~dgmrec_pyg.schema.cold_items`) and the same share of the rest become new. Every training and validation
    interaction of a new item becomes a test label. Users whose interactions were all with new items are left without
    training edges.

    Sets ``data['item'].is_new`` (bool ``[num_items]``) and ``data['item'].popularity`` (int64 ``[num_items]``, the
    number of training interactions before new items lost theirs). :class:`MissingModality` reads both, so it comes
    after this transform.

    The same seed draws the same items. The lists of new items that were released with DGMRec cannot be made again
    from the seeds given there, so numbers on those need the released files.

    Args:
        ratio (float): Share of items that become new, between 0 and 1. (default: :obj:`0.2`)
        seed (int): Seed of the draw. (default: :obj:`1111`)

    Raises:
        UserError: If :obj:`ratio` is not between 0 and 1, or if the graph has new items already.
    """

    def __init__(self, ratio: float = 0.2, seed: int = 1111) -> None:
        if not 0 <= ratio <= 1:
            raise UserError(f'HoldOutNewItems: ratio is {ratio}; give the share of new items, between 0 and 1')
        self.ratio = ratio
        self.seed = seed

    def forward(self, data: HeteroData) -> HeteroData:
        if 'is_new' in data[ITEM]:
            raise UserError("HoldOutNewItems: data['item'].is_new is there already; hold out new items only once")
        edge_index = training_edges(data)
        popularity = item_popularity(data)
        is_new = self._draw(cold_items(data)).to(edge_index.device)
        data[ITEM].is_new = is_new
        data[ITEM].popularity = popularity

        interacts = data[INTERACTS]
        val = interacts.val_edge_label_index
        new_train, new_val = is_new[edge_index[1]], is_new[val[1]]
        interacts.test_edge_label_index = torch.cat(
            [interacts.test_edge_label_index, val[:, new_val], edge_index[:, new_train]], dim=1)
        interacts.val_edge_label_index = val[:, ~new_val]
        set_training_edges(data, edge_index[:, ~new_train])
        return data

    def _draw(self, cold: Tensor) -> Tensor:
        """Returns the new items, bool ``[num_items]`` on the CPU."""
        generator = torch.Generator().manual_seed(self.seed)
        is_new = torch.zeros(cold.numel(), dtype=torch.bool)
        is_new[torch.cat(draw_share(cold.long().cpu(), self.ratio, generator))] = True
        return is_new

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(ratio={self.ratio}, seed={self.seed})'
