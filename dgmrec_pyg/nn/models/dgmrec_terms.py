"""The terms of DGMRec's loss, each from what one forward pass made.

Users and items of a batch are looked up once, each distinct one in one row; every term works on these rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import degree

from dgmrec_pyg.nn.club import CLUB
from dgmrec_pyg.nn.generator import ModalityGenerator
from dgmrec_pyg.nn.losses import info_nce_loss
from dgmrec_pyg.nn.ranking_loss import RankingLoss


@dataclass(frozen=True)
class Side:
    """Embeddings of some users or of some items.

    Attributes:
        collaborative (torch.Tensor): The LightGCN part, ``[N, d]``.
        filtered (tuple): The filtered features of each modality, general and specific part side by side,
            ``[N, 2 * d]``.
        modality_weight (float): What the filtered features count beside the LightGCN part.
    """

    collaborative: Tensor
    filtered: tuple[Tensor, ...]
    modality_weight: float

    def select(self, index: Tensor) -> Side:
        """Returns the rows of :obj:`index`."""
        return replace(self, collaborative=self.collaborative.index_select(0, index),
                       filtered=tuple(x.index_select(0, index) for x in self.filtered))

    @property
    def general(self) -> list[Tensor]:
        """The filtered general part of each modality, ``[N, d]``."""
        return [x.chunk(2, dim=1)[0] for x in self.filtered]

    @property
    def specific(self) -> list[Tensor]:
        """The filtered specific part of each modality, ``[N, d]``."""
        return [x.chunk(2, dim=1)[1] for x in self.filtered]

    @cached_property
    def sums(self) -> tuple[Tensor, ...]:
        """The sums of the general and of the specific parts over the modalities, ``[N, d]`` each."""
        return reduce(torch.add, self.filtered).chunk(2, dim=1)

    @property
    def general_sum(self) -> Tensor:
        """The sum of the general parts over the modalities, ``[N, d]``."""
        return self.sums[0]

    def to_unit(self) -> Side:
        """Returns the side in proportion, with fused rows of length 1 (or zero)."""
        length = self.fused().norm(dim=1, keepdim=True).clamp(min=1e-12)
        return replace(self, collaborative=self.collaborative / length,
                       filtered=tuple(x / length for x in self.filtered))

    def fused(self) -> Tensor:
        r"""Computes :math:`\mathbf{e} + w (\mathrm{mean}_m \mathbf{G}_m + \sum_m \mathbf{S}_m) / (M + 1)` with the
        weight :math:`w` of the modalities, ``[N, d]``."""
        general_sum, specific_sum = self.sums
        return self.collaborative + (general_sum / len(self.filtered) + specific_sum) * self.share

    @property
    def share(self) -> float:
        """What the sum of the specific parts, and the mean of the general ones, are multiplied by."""
        return self.modality_weight / (len(self.filtered) + 1)


@dataclass(frozen=True)
class Parts:
    """What a forward pass makes; dicts go by modality.

    Attributes:
        users (Side): All users, or those asked for.
        items (Side): All items, or those asked for.
        encoded (dict): Encoded features of these items, general and specific part side by side, ``[N, 2 * d]``.
        preference (dict): Preferences of these items' users, ``[N, d]``.
        all_items (Side, optional): All items, as long as a term reads them.
        features (dict): The feature tables as the encoder passed them on, ``[I, F]``.
    """

    users: Side
    items: Side
    encoded: dict[str, Tensor]
    preference: dict[str, Tensor]
    all_items: Side | None
    features: dict[str, Tensor]


@dataclass(frozen=True)
class Pairs:
    """Users with an item each.

    Attributes:
        users (Side): The distinct users; pair k's is row ``user[k]``.
        items (Side): The distinct items; pair k's is row ``item[k]``.
    """

    users: Side
    user: Tensor
    items: Side
    item: Tensor

    def first(self, count: int) -> Pairs:
        """Returns the first pairs; 0 for all."""
        if count == 0 or count >= self.user.numel():
            return self
        users, user = distinct(self.user[:count])
        items, item = distinct(self.item[:count])
        return Pairs(self.users.select(users), user, self.items.select(items), item)


@dataclass(frozen=True)
class Batch:
    """Where the members of a batch stand among its distinct users and items.

    Attributes:
        user (torch.Tensor): Row of each member's user.
        item_ids (torch.Tensor): The ids of the distinct items.
        pos_item (torch.Tensor): Row of each member's positive item.
        neg_item (torch.Tensor): Row of each member's negative item.
        negatives (torch.Tensor): Rows of the distinct negative items, of as many members as are contrasted.
        positives (Side): The distinct positives.
        positive (torch.Tensor): Row of each member's positive item among these.
        pairs (Pairs): The members that are contrasted with each other.
        observed (dict): By modality the rows of the items that have it.
        complete (torch.Tensor): The rows of the items that have all modalities.
        contrasted (torch.Tensor): Those of them that stand in contrasted members, positive or negative.
    """

    user: Tensor
    item_ids: Tensor
    pos_item: Tensor
    neg_item: Tensor
    negatives: Tensor
    positives: Side
    positive: Tensor
    pairs: Pairs
    observed: dict[str, Tensor]
    complete: Tensor
    contrasted: Tensor


def distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the distinct ids, ascending, and the position of each member's id among them."""
    return ids.unique(return_inverse=True)


@torch.compiler.disable  # Its sizes depend on the data: one break instead of one per size.
def make_batch(parts: Parts, user: Tensor, item_ids: Tensor, item: Tensor, missing: Mapping[str, Tensor],
               num_pairs: int = 0) -> Batch:
    """Finds where the members of a batch stand.

    Args:
        parts (Parts): A forward pass of the batch's distinct users and items.
        user (torch.Tensor): Row of each member's user among these, int64 ``[B]``.
        item_ids (torch.Tensor): The distinct items, int64.
        item (torch.Tensor): Row of each member's positive and then of each member's negative item among these, int64
            ``[2 * B]``.
        missing (Mapping[str, torch.Tensor]): By modality the items that lack it, bool ``[I]``.
        num_pairs (int): How many members, the first ones of a shuffled batch, are contrasted with each other; 0 for
            all. (default: :obj:`0`)
    """
    pos_item, neg_item = item.chunk(2)
    ids, positive = distinct(pos_item)
    positives = parts.items.select(ids)
    lacks = {m: mask.index_select(0, item_ids) for m, mask in missing.items()}
    has_all = ~torch.stack(list(lacks.values())).any(dim=0)
    is_contrasted = torch.zeros_like(has_all)
    count = num_pairs if num_pairs > 0 else pos_item.numel()
    for rows in (pos_item, neg_item):
        is_contrasted[rows[:count]] = True
    return Batch(user, item_ids, pos_item, neg_item, neg_item[:count].unique(), positives, positive,
                 Pairs(parts.users, user, positives, positive).first(num_pairs),
                 {m: (~mask).nonzero().view(-1) for m, mask in lacks.items()}, has_all.nonzero().view(-1),
                 (has_all & is_contrasted).nonzero().view(-1))


def norm_of_rows(x: Tensor, index: Tensor) -> Tensor:
    """Computes the norm of the table ``x[index]`` without making it, a scalar.

    Args:
        x (torch.Tensor): ``[N, C]``.
        index (torch.Tensor): Rows, int64 ``[K]``.
    """
    # Not the root of a sum, whose gradient at zero is not a number.
    return torch.linalg.vector_norm(torch.linalg.vector_norm(x, dim=1) * degree(index, x.size(0), x.dtype).sqrt())


def ranking_terms(parts: Parts, batch: Batch, loss: RankingLoss, user_ids: Tensor) -> dict[str, Tensor]:
    """The loss of the ranking, ``softmax`` or ``bpr``, under its name, and ``embedding_reg``.

    Args:
        parts (Parts): A forward pass of the batch.
        batch (Batch): Where its members stand.
        loss (RankingLoss): Which loss.
        user_ids (torch.Tensor): The ids of the batch's distinct users, int64 ``[N]``.
    """
    users, items = parts.users.fused(), parts.items.fused()
    norms = (norm_of_rows(parts.users.collaborative, batch.user),
             norm_of_rows(parts.items.collaborative, batch.pos_item),
             norm_of_rows(parts.items.collaborative, batch.neg_item))
    return {
        loss.kind: loss(users, items, user_ids, batch.user, batch.pos_item, batch.neg_item, batch.negatives),
        'embedding_reg': 1e-5 * torch.stack(norms).sum() / batch.user.numel(),
    }


def feature_reg(batch: Batch) -> Tensor:
    """Norms of the filtered features of the batch's positives."""
    return torch.stack([
        norm_of_rows(general + specific, batch.positive)
        for general, specific in zip(batch.positives.general, batch.positives.specific, strict=True)
    ]).sum() / batch.positive.numel()


def inter_modal(parts: Parts, batch: Batch, temperature: float) -> Tensor:
    """Aligns the general parts of every two modalities, on complete items and on users."""
    of_items = [x.index_select(0, batch.contrasted).chunk(2, dim=1)[0] for x in parts.encoded.values()]
    losses = [info_nce_loss(first, second, temperature) for first, second in combinations(of_items, 2)]
    losses += [info_nce_loss(first, second, temperature, batch.pairs.user)
               for first, second in combinations(batch.pairs.users.general, 2)]
    return torch.stack(losses).sum()


def intra_modal(pairs: Pairs, general_temperature: float, temperature: float) -> Tensor:
    """Aligns users with their items in collaborative, general and specific embeddings."""
    users, items = pairs.users, pairs.items
    kinds = [(users.collaborative, items.collaborative, temperature),
             (users.general_sum, items.general_sum, general_temperature),
             *((user, item, temperature) for user, item in zip(users.specific, items.specific, strict=True))]
    return torch.stack([info_nce_loss(user, item, at, pairs.user, pairs.item) for user, item, at in kinds]).sum()


def behavior_alignment(pairs: Pairs, temperature: float) -> Tensor:
    """Aligns collaborative with general embeddings, of the items and of the users."""
    return (info_nce_loss(pairs.items.collaborative, pairs.items.general_sum, temperature, pairs.item)
            + info_nce_loss(pairs.users.collaborative, pairs.users.general_sum, temperature, pairs.user))


def reconstruction(items: Mapping[str, Tensor], features: Mapping[str, Tensor], generator_net: ModalityGenerator,
                   noise_scale: float, generator: torch.Generator | None) -> Tensor:
    """Compares decoded features of some items with those that they have, by modality.

    Args:
        items (Mapping[str, torch.Tensor]): Filtered general and specific parts side by side, ``[N, 2 * d]``.
        features (Mapping[str, torch.Tensor]): The features, ``[N, F]``.
        generator_net (ModalityGenerator): Decodes.
        noise_scale (float): Length of the noise on what is decoded.
        generator (torch.Generator, optional): Draws the noise.
    """
    losses = [generator_net.reconstruction_loss(m, items[m].detach(), features[m], noise_scale, generator)
              for m in features]
    return torch.stack(losses).sum()


def generation(parts: Parts, batch: Batch, generator_net: ModalityGenerator, noise_scale: float,
               generator: torch.Generator | None) -> Tensor:
    """Compares generated with encoded specific parts on the items that have the modality, and translated with
    filtered general parts on the items that have all."""
    complete = [x.index_select(0, batch.complete).chunk(2, dim=1)[0] for x in parts.items.filtered]
    general = dict(zip(batch.observed, complete, strict=True))
    losses = []
    for m, rows in batch.observed.items():
        made = generator_net.generate_specific(m, parts.preference[m].index_select(0, rows), noise_scale, generator)
        losses.append(_mse(parts.encoded[m].index_select(0, rows).chunk(2, dim=1)[1], made))
        losses.append(_mse(general[m], generator_net.translate(m, general, noise_scale, generator)))
    return torch.stack(losses).sum()


def feature_generation(parts: Parts, batch: Batch, generator_net: ModalityGenerator, noise_scale: float,
                       generator: torch.Generator | None) -> Tensor:
    """Compares generated with present features, on the items that have the modality.

    They are generated as :meth:`~dgmrec_pyg.nn.DGMRec.generate_missing` does it, but not spread over the item graph,
    which would take a pass over all items. Encoders and preferences get no gradient from it.
    """
    losses = []
    for m, rows in batch.observed.items():
        general = {o: x.detach().index_select(0, rows).chunk(2, dim=1)[0] for o, x in parts.encoded.items()}
        preference = parts.preference[m].detach().index_select(0, rows)
        made = torch.cat([generator_net.translate(m, general), generator_net.generate_specific(m, preference)], dim=1)
        target = parts.features[m].detach().index_select(0, batch.item_ids.index_select(0, rows))
        losses.append(generator_net.reconstruction_loss(m, made, target, noise_scale, generator))
    return torch.stack(losses).sum()


def club(items: Side, estimators: Mapping[str, CLUB], permutation: Tensor | None,
         generator: torch.Generator | None) -> Tensor:
    """Bounds what the general parts tell about the specific ones, on all items that take part in training. The
    estimators get no gradient of it."""
    encoded = zip(estimators.items(), items.general, items.specific, strict=True)
    return torch.stack([estimator.bound(specific, general, permutation, generator)
                        for (_, estimator), general, specific in encoded]).sum()


def _mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error, 0 where there are no rows."""
    return F.mse_loss(a, b) if a.numel() > 0 else (a.sum() + b.sum()) * 0.0
