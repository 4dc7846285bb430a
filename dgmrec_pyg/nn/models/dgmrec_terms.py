"""The terms of DGMRec's loss, each from the parts that one forward pass made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from dgmrec_pyg.nn.generator import ModalityGenerator
from dgmrec_pyg.nn.losses import bpr_loss, info_nce_loss


@dataclass(frozen=True)
class Parts:
    """What a forward pass makes; dicts go by modality.

    Attributes:
        user, item (torch.Tensor): Collaborative embeddings, ``[U, d]`` and ``[I, d]``.
        general, specific (dict): Encoded features, ``[I, d]``.
        preference (dict): Item preferences, ``[I, d]``.
        item_general, item_specific (dict): Filtered and spread over the item graphs, ``[I, d]``.
        user_general, user_specific (dict): Means over the users' items, ``[U, d]``.
    """

    user: Tensor
    item: Tensor
    general: dict[str, Tensor]
    specific: dict[str, Tensor]
    preference: dict[str, Tensor]
    item_general: dict[str, Tensor]
    item_specific: dict[str, Tensor]
    user_general: dict[str, Tensor]
    user_specific: dict[str, Tensor]


@dataclass(frozen=True)
class Rows:
    """Some rows of a table, each once, and where every member of the batch finds its own.

    Attributes:
        unique (torch.Tensor): Distinct ids, ``[N]``.
        inverse (torch.Tensor): Position of each member's id in :attr:`unique`, ``[B]``.
    """

    unique: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, ids: Tensor) -> Rows:
        """Collects the distinct ids."""
        return cls(*ids.unique(return_inverse=True))


def fuse(collaborative: Tensor, general: dict[str, Tensor], specific: dict[str, Tensor]) -> Tensor:
    r"""Computes :math:`\mathbf{e} + (\mathrm{mean}_m \mathbf{G}_m + \sum_m \mathbf{S}_m) / (M + 1)`, row by row."""
    num_modalities = len(general)
    return collaborative + (_total(general) / num_modalities + _total(specific)) / (num_modalities + 1)


def fused_rows(parts: Parts, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Fuses the embeddings of some users and some items only."""
    def rows(tables: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
        return {modality: table[index] for modality, table in tables.items()}

    user = fuse(parts.user[users], rows(parts.user_general, users), rows(parts.user_specific, users))
    item = fuse(parts.item[items], rows(parts.item_general, items), rows(parts.item_specific, items))
    return user, item


def ranking_terms(parts: Parts, users: Rows, items: Rows) -> dict[str, Tensor]:
    """``bpr`` and ``embedding_reg``; the items are the positives and then the negatives of the batch."""
    batch_size = users.inverse.numel()
    user, item = fused_rows(parts, users.unique, items.unique)
    positive, negative = items.inverse.split(batch_size)
    user = user[users.inverse]
    user_id, item_id = parts.user[users.unique], parts.item[items.unique]
    norms = (user_id[users.inverse].norm(), item_id[positive].norm(), item_id[negative].norm())
    return {
        'bpr': bpr_loss((user * item[positive]).sum(dim=1), (user * item[negative]).sum(dim=1)),
        'embedding_reg': 1e-5 * torch.stack(norms).sum() / batch_size,
    }


def feature_reg(parts: Parts, positive: Rows) -> Tensor:
    """Norms of the filtered features of the batch's positives."""
    batch_size = positive.inverse.numel()
    return torch.stack([
        (general + parts.item_specific[modality])[positive.unique][positive.inverse].norm()
        for modality, general in parts.item_general.items()
    ]).sum() / batch_size


def inter_modal(parts: Parts, users: Rows, complete_items: Tensor, temperature: float) -> Tensor:
    """Aligns the general parts of every two modalities, on complete items and on users."""
    loss = parts.user.new_zeros(())
    for first, second in combinations(parts.general, 2):
        loss = loss + info_nce_loss(parts.general[first][complete_items], parts.general[second][complete_items],
                                    temperature)
        loss = loss + info_nce_loss(parts.user_general[first][users.unique], parts.user_general[second][users.unique],
                                    temperature, users.inverse)
    return loss


def intra_modal(parts: Parts, users: Rows, positive: Rows, general_temperature: float, temperature: float) -> Tensor:
    """Aligns users with their items in collaborative, general and specific embeddings."""
    def pairs(user: Tensor, item: Tensor, at: float) -> Tensor:
        return info_nce_loss(user[users.unique], item[positive.unique], at, users.inverse, positive.inverse)

    loss = pairs(parts.user, parts.item, temperature)
    loss = loss + pairs(_total(parts.user_general), _total(parts.item_general), general_temperature)
    for modality, user_specific in parts.user_specific.items():
        loss = loss + pairs(user_specific, parts.item_specific[modality], temperature)
    return loss


def behavior_alignment(parts: Parts, users: Rows, positive: Rows, temperature: float) -> Tensor:
    """Aligns collaborative with general embeddings, of the batch's positives and of its users."""
    item_general, user_general = _total(parts.item_general), _total(parts.user_general)
    return (info_nce_loss(parts.item[positive.unique], item_general[positive.unique], temperature, positive.inverse)
            + info_nce_loss(parts.user[users.unique], user_general[users.unique], temperature, users.inverse))


def reconstruction(parts: Parts, features: dict[str, Tensor], generator_net: ModalityGenerator, noise_scale: float,
                   generator: torch.Generator | None) -> Tensor:
    """Compares decoded with present features, on all items."""
    return torch.stack([
        F.mse_loss(generator_net.decode(modality, parts.item_general[modality].detach(),
                                        parts.item_specific[modality].detach(), noise_scale, generator), x)
        for modality, x in features.items()
    ]).sum()


def generation(parts: Parts, observed_items: dict[str, Tensor], complete_items: Tensor,
               generator_net: ModalityGenerator, noise_scale: float, generator: torch.Generator | None) -> Tensor:
    """Compares generated with encoded specific parts on the items that have the modality, and translated with
    filtered general parts on the items that have all."""
    loss = parts.user.new_zeros(())
    general = {modality: table[complete_items] for modality, table in parts.item_general.items()}
    for modality, items in observed_items.items():
        made = generator_net.generate_specific(modality, parts.preference[modality][items], noise_scale, generator)
        loss = loss + _mse(parts.specific[modality][items], made)
        loss = loss + _mse(general[modality],
                           generator_net.translate(modality, general, noise_scale, generator))
    return loss


def _total(tables: dict[str, Tensor]) -> Tensor:
    return reduce(torch.add, tables.values())


def _mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error, 0 where there are no rows."""
    return F.mse_loss(a, b) if a.numel() > 0 else (a.sum() + b.sum()) * 0.0
