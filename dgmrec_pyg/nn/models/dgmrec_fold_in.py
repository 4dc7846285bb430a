"""How DGMRec places items without interactions: held-out ones, and those that come after training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dgmrec_pyg.imputation import METHODS
from dgmrec_pyg.nn.models.dgmrec_terms import Side
from dgmrec_pyg.nn.new_items import borrow_by_features
from dgmrec_pyg.regression import EmbeddingRegression

if TYPE_CHECKING:
    from dgmrec_pyg.nn.models.dgmrec import DGMRec

LENDERS = 20
"""Old items that an item without interactions borrows from."""


def borrow_side(items: Side, embedding: Tensor, regression: EmbeddingRegression, columns: Tensor,
                features: Mapping[str, Tensor]) -> Side:
    """Gives items without interactions the means of the old items next to which their features place them.

    A regression of the old items' embeddings on their features says what of the features tells about users' tastes;
    nearest are the old items whose own guesses have the highest cosine with an item's.

    Args:
        items (Side): All items of the set.
        embedding (torch.Tensor): Their embeddings as scores compare them, ``[I, d]``; only those of old items are read.
        regression (EmbeddingRegression): Reads features; it knows the old items.
        columns (torch.Tensor): What it reads of all items, generated features in place, ``[I, P]``.
        features (Mapping[str, torch.Tensor]): By modality, of the items to place, ``[N, F]``, what they lack filled in.

    Returns:
        Side: Of the items to place; zeros where there is no old item.
    """
    of_new, values = regression.columns(features), torch.cat([items.collaborative, *items.filtered], dim=1)
    lenders = regression.known.nonzero().view(-1).to(embedding.device)
    if lenders.numel() == 0:
        borrowed = values.new_zeros(len(of_new), values.size(1))
    else:
        guess = regression.fit(columns, embedding)
        # Where features tell nothing, all are as near: then nobody is left out.
        count = LENDERS if guess.coefficients.any() else lenders.numel()
        borrowed = borrow_by_features(guess(of_new).to(embedding.device), values, guess(columns).to(embedding.device),
                                      lenders, count)
    widths = [x.size(1) for x in (items.collaborative, *items.filtered)]
    collaborative, *filtered = borrowed.split(widths, dim=1)
    return replace(items, collaborative=collaborative, filtered=tuple(filtered))


def fill_new_features(model: DGMRec, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Generates what items that came after training lack, as the model does for held-out new items, without noise.

    By regression it follows from their other modalities. From encodings, the general part comes from their other
    modalities, the specific part from the preferences of no users (zeros), and, as the item graphs cut such items off,
    nothing is spread to them. What is not generated (see ``generate_for``) is imputed.

    Args:
        model (DGMRec): A trained model.
        features (Mapping[str, torch.Tensor]): As :func:`~dgmrec_pyg.nn.fold_in.check_features` returns them.

    Returns:
        dict: For each modality the features ``[N, C]`` as the model's tables hold them.
    """
    has = torch.stack([~features[m].isnan().any(dim=1) for m in model.modalities], dim=1)
    given, filled = {}, {}
    for column, m in enumerate(model.modalities):
        given[m] = (model.projection[m](features[m]) if m in model.projection else features[m]) / model.scale[m]
        table = model.feature_tables[m].detach()
        unusable = model.missing[:, column] if model.is_new is None else model.missing[:, column] | model.is_new
        imputed = METHODS[model.config.imputation](table, unusable)
        filled[m] = torch.where(has[:, column].unsqueeze(1), given[m], imputed)
    if model.config.generate_for == 'none':
        return filled
    generated = (model.feature_regression().generate_for_new(given) if model.config.generate_from == 'features' else
                 _generate_from_encodings(model, filled))
    lacks = ~has if model.config.generate_for == 'all' else ~has & ((~has).sum(dim=1, keepdim=True) == 1)
    return {m: torch.where(lacks[:, column].unsqueeze(1), generated[m], x)
            for column, (m, x) in enumerate(filled.items())}


def _generate_from_encodings(model: DGMRec, filled: Mapping[str, Tensor]) -> dict[str, Tensor]:
    general, _ = model.encoder(filled)
    net, nobody = model.generator_net, torch.zeros_like(next(iter(general.values())))
    return {m: net.decode(m, net.translate(m, general), net.generate_specific(m, nobody)) for m in filled}
