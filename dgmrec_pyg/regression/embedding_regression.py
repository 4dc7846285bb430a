"""Guessing where an item stands among users' tastes from its features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dgmrec_pyg.regression.block_ridge import LinearMap, fit_ridge, moments
from dgmrec_pyg.regression.item_columns import center

_BLOCK_ROWS = 2**15


class EmbeddingRegression:
    """Guesses the embeddings of items from the features of all their modalities, by ridge regression in closed form.

    Each modality is brought to rows of mean square length 1, so that none counts by its scale or width; the penalty is
    that of the least error by generalized cross-validation (:func:`~dgmrec_pyg.regression.block_ridge.fit_ridge`).
    Features of more than 256 columns are represented by their 256 leading principal components.

    Args:
        features (Mapping[str, torch.Tensor]): For each modality the features of all items, ``[I, F]``, what is missing
            filled in; principal components are theirs.
        known (torch.Tensor): The items that are learned from, bool ``[I]``.
        seed (int): Seed of the randomized decompositions. (default: :obj:`0`)
    """

    def __init__(self, features: Mapping[str, Tensor], known: Tensor, seed: int = 0) -> None:
        self.known = known.cpu()
        self._centered = {m: center(x.detach().cpu(), self.known, torch.Generator().manual_seed(seed))
                          for m, x in sorted(features.items())}

    def columns(self, features: Mapping[str, Tensor]) -> Tensor:
        """Returns what the regression reads of items, ``[N, P]``, on CPU.

        Args:
            features (Mapping[str, torch.Tensor]): Every modality, ``[N, F]``, what is missing filled in.
        """
        return torch.cat([centered(features[m].detach().cpu()) for m, centered in self._centered.items()], dim=1)

    def fit(self, columns: Tensor, embedding: Tensor) -> LinearMap:
        """Fits the guess of embeddings from columns.

        Args:
            columns (torch.Tensor): What :meth:`columns` returns for all items, ``[I, P]``.
            embedding (torch.Tensor): The embeddings of all items, ``[I, d]``; those of unknown items are not read.
        """
        sizes = [len(c.mean) if c.basis is None else c.basis.size(1) for c in self._centered.values()]
        embedding = embedding.detach().cpu()
        return fit_ridge(moments((columns[rows], embedding[rows])
                                 for rows in self.known.nonzero().view(-1).split(_BLOCK_ROWS)), sizes)
