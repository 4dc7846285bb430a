"""The terms of DGMRec's loss, each from what one forward pass made.

Users and items of a batch are looked up once, each distinct one in one row; every term works on these rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from dgmrec_pyg.nn.generator import ModalityGenerator
from dgmrec_pyg.nn.losses import bpr_loss, info_nce_loss


@dataclass(frozen=True)
class Side:
    """Embeddings of some users or of some items.

    Attributes:
        collaborative (torch.Tensor): The LightGCN part, ``[N, d]``.
        filtered (torch.Tensor): The filtered features of the M modalities side by side, of each the general and then
            the specific part, ``[N, 2 * d * M]``.
    """

    collaborative: Tensor
    filtered: Tensor

    def select(self, index: Tensor) -> Side:
        """Returns the rows of :obj:`index`."""
        return Side(self.collaborative.index_select(0, index), self.filtered.index_select(0, index))

    @property
    def general(self) -> list[Tensor]:
        """The filtered general part of each modality, ``[N, d]``."""
        return list(self.filtered.split(self.collaborative.size(1), dim=1)[0::2])

    @property
    def specific(self) -> list[Tensor]:
        """The filtered specific part of each modality, ``[N, d]``."""
        return list(self.filtered.split(self.collaborative.size(1), dim=1)[1::2])

    @property
    def general_sum(self) -> Tensor:
        """The sum of the general parts over the modalities, ``[N, d]``."""
        return torch.stack(self.general).sum(dim=0)

    def fused(self) -> Tensor:
        r"""Computes :math:`\mathbf{e} + (\mathrm{mean}_m \mathbf{G}_m + \sum_m \mathbf{S}_m) / (M + 1)`, ``[N, d]``."""
        num_modalities = len(self.general)
        specific_sum = torch.stack(self.specific).sum(dim=0)
        return self.collaborative + (self.general_sum / num_modalities + specific_sum) / (num_modalities + 1)


@dataclass(frozen=True)
class Parts:
    """What a forward pass makes; dicts go by modality.

    Attributes:
        users (Side): All users, or those of the batch.
        items (Side): All items.
        general, specific (dict): Encoded features of all items, ``[I, d]``.
        preference (dict): Preferences of all items, ``[I, d]``.
        features (dict): The feature tables as the encoder passed them on, ``[I, F]``.
    """

    users: Side
    items: Side
    general: dict[str, Tensor]
    specific: dict[str, Tensor]
    preference: dict[str, Tensor]
    features: dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """A batch whose users and items are looked up.

    Attributes:
        users (Side): The distinct users; member k of the batch is row ``user[k]``.
        item_ids (torch.Tensor): The ids of the distinct items.
        items (Side): The distinct items, positive and negative; member k's are rows ``pos_item[k]`` and
            ``neg_item[k]``.
        positives (Side): The distinct positives; member k's is row ``positive[k]``.
        observed (dict): By modality the ids of the distinct items that have it.
        complete_items (torch.Tensor): The ids of the distinct items that have all modalities.
        complete (torch.Tensor): Their rows in :attr:`items`.
    """

    users: Side
    user: Tensor
    item_ids: Tensor
    items: Side
    pos_item: Tensor
    neg_item: Tensor
    positives: Side
    positive: Tensor
    observed: dict[str, Tensor]
    complete_items: Tensor
    complete: Tensor


def distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the distinct ids, ascending, and the position of each member's id among them."""
    return ids.unique(return_inverse=True)


def make_batch(parts: Parts, user: Tensor, pos_item: Tensor, neg_item: Tensor, missing: Mapping[str, Tensor]) -> Batch:
    """Looks up the rows of a batch.

    Args:
        parts (Parts): A forward pass; its users are the distinct ones of the batch.
        user (torch.Tensor): Row of each member's user among these, int64 ``[B]``.
        pos_item (torch.Tensor): Positive items, int64 ``[B]``.
        neg_item (torch.Tensor): Negative items, int64 ``[B]``.
        missing (Mapping[str, torch.Tensor]): By modality the items that lack it, bool ``[I]``.
    """
    items, inverse = distinct(torch.cat([pos_item, neg_item]))
    pos_row, neg_row = inverse[:pos_item.numel()], inverse[pos_item.numel():]
    positives, positive = distinct(pos_row)
    lacks = {m: mask.index_select(0, items) for m, mask in missing.items()}
    complete = (~torch.stack(list(lacks.values())).any(dim=0)).nonzero().view(-1)
    rows = parts.items.select(items)
    return Batch(parts.users, user, items, rows, pos_row, neg_row, rows.select(positives), positive,
                 {m: items[~mask] for m, mask in lacks.items()}, items[complete], complete)


def ranking_terms(batch: Batch) -> dict[str, Tensor]:
    """``bpr`` and ``embedding_reg``."""
    user, item = batch.users.fused().index_select(0, batch.user), batch.items.fused()
    positive, negative = item.index_select(0, batch.pos_item), item.index_select(0, batch.neg_item)
    norms = (batch.users.collaborative.index_select(0, batch.user).norm(),
             batch.items.collaborative.index_select(0, batch.pos_item).norm(),
             batch.items.collaborative.index_select(0, batch.neg_item).norm())
    return {
        'bpr': bpr_loss((user * positive).sum(dim=1), (user * negative).sum(dim=1)),
        'embedding_reg': 1e-5 * torch.stack(norms).sum() / batch.user.numel(),
    }


def feature_reg(batch: Batch) -> Tensor:
    """Norms of the filtered features of the batch's positives."""
    return torch.stack([
        (general + specific).index_select(0, batch.positive).norm()
        for general, specific in zip(batch.positives.general, batch.positives.specific, strict=True)
    ]).sum() / batch.positive.numel()


def inter_modal(parts: Parts, batch: Batch, temperature: float) -> Tensor:
    """Aligns the general parts of every two modalities, on complete items and on users."""
    of_items = [table.index_select(0, batch.complete_items) for table in parts.general.values()]
    losses = [info_nce_loss(first, second, temperature) for first, second in combinations(of_items, 2)]
    losses += [info_nce_loss(first, second, temperature, batch.user)
               for first, second in combinations(batch.users.general, 2)]
    return torch.stack(losses).sum()


def intra_modal(batch: Batch, general_temperature: float, temperature: float) -> Tensor:
    """Aligns users with their items in collaborative, general and specific embeddings."""
    users, positives = batch.users, batch.positives
    pairs = [(users.collaborative, positives.collaborative, temperature),
             (users.general_sum, positives.general_sum, general_temperature),
             *((user, item, temperature) for user, item in zip(users.specific, positives.specific, strict=True))]
    return torch.stack([info_nce_loss(user, item, at, batch.user, batch.positive) for user, item, at in pairs]).sum()


def behavior_alignment(batch: Batch, temperature: float) -> Tensor:
    """Aligns collaborative with general embeddings, of the batch's positives and of its users."""
    users, positives = batch.users, batch.positives
    return (info_nce_loss(positives.collaborative, positives.general_sum, temperature, batch.positive)
            + info_nce_loss(users.collaborative, users.general_sum, temperature, batch.user))


def reconstruction(parts: Parts, items: Tensor | None, generator_net: ModalityGenerator, noise_scale: float,
                   generator: torch.Generator | None) -> Tensor:
    """Compares decoded with present features, of some items or (``None``) of all."""
    learned = parts.items if items is None else parts.items.select(items)
    losses = []
    for (m, x), general, specific in zip(parts.features.items(), learned.general, learned.specific, strict=True):
        target = x if items is None else x.index_select(0, items)
        losses.append(generator_net.reconstruction_loss(m, general.detach(), specific.detach(), target, noise_scale,
                                                        generator))
    return torch.stack(losses).sum()


def generation(parts: Parts, batch: Batch, generator_net: ModalityGenerator, noise_scale: float,
               generator: torch.Generator | None) -> Tensor:
    """Compares generated with encoded specific parts on the items that have the modality, and translated with
    filtered general parts on the items that have all."""
    complete = [table.index_select(0, batch.complete) for table in batch.items.general]
    general = dict(zip(batch.observed, complete, strict=True))
    losses = []
    for m, items in batch.observed.items():
        made = generator_net.generate_specific(m, parts.preference[m].index_select(0, items), noise_scale, generator)
        losses.append(_mse(parts.specific[m].index_select(0, items), made))
        losses.append(_mse(general[m], generator_net.translate(m, general, noise_scale, generator)))
    return torch.stack(losses).sum()


def club(items: Side, estimators: Mapping[str, torch.nn.Module], permutation: Tensor | None,
         generator: torch.Generator | None) -> Tensor:
    """Bounds what the general parts tell about the specific ones, on all items that take part in training."""
    encoded = zip(estimators.items(), items.general, items.specific, strict=True)
    return torch.stack([estimator(specific, general, permutation, generator)
                        for (_, estimator), general, specific in encoded]).sum()


def _mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error, 0 where there are no rows."""
    return F.mse_loss(a, b) if a.numel() > 0 else (a.sum() + b.sum()) * 0.0
