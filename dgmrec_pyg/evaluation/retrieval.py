"""Finding an item's content by a guess of it: how far up the truth stands among all candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dgmrec_pyg.errors import UserError

RETRIEVAL_KS = (1, 5, 10, 50)
RETRIEVAL_METRICS = (*(f'recall@{k}' for k in RETRIEVAL_KS), 'mrr', 'median_rank')
"""The names of the metrics; of the last one small values are good."""

_BLOCK_BYTES = 16 * 2**20
_ROUNDING = 1e-12


@torch.no_grad()
def truth_ranks(query: Tensor, candidates: Tensor, block_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Returns between which ranks each query finds its own candidate, by cosine similarity.

    Candidates that are as similar as the truth stand in no order: the truth may have any of their ranks, from the first
    to the last. Similarities are compared in blocks of queries; nothing of size queries x candidates is kept.

    Args:
        query (torch.Tensor): One row per item, ``[N, d]``.
        candidates (torch.Tensor): The truth of each, in the same order, ``[N, d]``.
        block_size (int, optional): Queries compared at a time. (default: as many as keep a block at 16 MB)

    Returns:
        tuple[torch.Tensor, torch.Tensor]: First and last rank, from 1, int64 ``[N]`` each.

    Raises:
        UserError: If there is no query, the two are not of the same shape, or a value is not finite.
    """
    if query.shape != candidates.shape or query.dim() != 2 or len(query) == 0:
        raise UserError(f'each query needs one candidate of its size (got {tuple(query.shape)} and '
                        f'{tuple(candidates.shape)})')
    if not (query.isfinite().all() and candidates.isfinite().all()):
        raise UserError('queries and candidates must be finite')
    query, candidates = F.normalize(query.double()), F.normalize(candidates.double())
    rows = torch.arange(len(query), device=query.device)
    first, last = [], []
    for block in rows.split(block_size or max(1, _BLOCK_BYTES // (8 * len(query)))):
        similarity = query[block] @ candidates.t()
        truth = similarity.gather(1, block.unsqueeze(1))
        first.append((similarity > truth + _ROUNDING).sum(dim=1) + 1)
        last.append((similarity >= truth - _ROUNDING).sum(dim=1))
    return torch.cat(first), torch.cat(last)


def retrieval_metrics(first: Tensor, last: Tensor, ks: Sequence[int] = RETRIEVAL_KS) -> dict[str, float]:
    """Returns Recall@k (the share of queries whose truth is among the first k), MRR and the median rank.

    Where similarities tie these are what a random order of them gives on average, and the middle rank for the median:
    so a query that tells nothing apart, such as a vector of zeros, counts as chance does.

    Args:
        first, last (torch.Tensor): What :func:`truth_ranks` returned, ``[N]`` each.
        ks (Sequence[int]): The k. (default: :obj:`(1, 5, 10, 50)`)
    """
    lowest, highest = first.cpu().numpy(), last.cpu().numpy()
    ties = highest - lowest + 1
    recalls = {f'recall@{k}': float(np.clip((k - lowest + 1) / ties, 0.0, 1.0).mean()) for k in ks}
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, highest.max() + 1))])
    return {**recalls, 'mrr': float(((harmonic[highest] - harmonic[lowest - 1]) / ties).mean()),
            'median_rank': float(np.median((lowest + highest) / 2))}


def chance_metrics(num_candidates: int, ks: Sequence[int] = RETRIEVAL_KS) -> dict[str, float]:
    r"""Returns what a random order of :math:`N` candidates gives on average: Recall@k is :math:`\min(1, k / N)`, MRR
    :math:`\frac{1}{N} \sum_{r=1}^{N} 1 / r`, the median rank :math:`(N + 1) / 2`.

    Args:
        num_candidates (int): :math:`N`, at least 1.
        ks (Sequence[int]): The k. (default: :obj:`(1, 5, 10, 50)`)
    """
    if num_candidates < 1:
        raise UserError('there is no candidate')
    recalls = {f'recall@{k}': min(1.0, k / num_candidates) for k in ks}
    return {**recalls, 'mrr': float((1 / np.arange(1, num_candidates + 1)).mean()),
            'median_rank': (num_candidates + 1) / 2}


def ridge_guess(source: np.ndarray, target: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Guesses features of one modality from those of another by ridge regression, whose penalty leave-one-out
    cross-validation chooses.

    Args:
        source (numpy.ndarray): The modality that is known, of items that have both, ``[N, F]``.
        target (numpy.ndarray): The other modality of these, ``[N, G]``.
        query (numpy.ndarray): The known modality of other items, ``[Q, F]``.

    Returns:
        numpy.ndarray: Guesses, ``[Q, G]``.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-1, 5, 7)))
    return model.fit(source, target).predict(query)


def cca_projections(source: np.ndarray, target: np.ndarray, query: np.ndarray, candidates: np.ndarray,
                    num_components: int = 32, num_principal: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Brings two modalities into one space by canonical correlation analysis.

    Both are brought to principal components before: with as many features as items, correlations could be made of
    anything, and scikit-learn's algorithm inverts a matrix of that size for each component.

    Args:
        source (numpy.ndarray): One modality of items that have both, ``[N, F]``.
        target (numpy.ndarray): The other one of these, ``[N, G]``.
        query (numpy.ndarray): The first modality of other items, ``[Q, F]``.
        candidates (numpy.ndarray): The second one of these, ``[Q, G]``.
        num_components (int): Canonical components, at most. (default: :obj:`32`)
        num_principal (int): Principal components, at most. (default: :obj:`64`)

    Returns:
        tuple[numpy.ndarray, numpy.ndarray]: Queries and candidates in the common space, ``[Q, C]`` each.
    """
    of_source, of_target, cca = _fit_cca(source, target, num_components, num_principal)
    return cca.transform(of_source.transform(query), of_target.transform(candidates))


def cca_guess(source: np.ndarray, target: np.ndarray, query: np.ndarray,
              num_components: Sequence[int] = (2, 4, 8, 16, 32), num_principal: int = 64) -> np.ndarray:
    """Guesses features of one modality from those of another by canonical correlation analysis of principal components,
    with the number of canonical ones that comes nearest on the last fifth of the items, left out for that.

    Of fewer than five items, or where nothing varies, the guess is their mean.

    Args:
        source (numpy.ndarray): The modality that is known, of items that have both, ``[N, F]``.
        target (numpy.ndarray): The other modality of these, ``[N, G]``.
        query (numpy.ndarray): The known modality of other items, ``[Q, F]``.
        num_components (Sequence[int]): Canonical components to try. (default: :obj:`(2, 4, 8, 16, 32)`)
        num_principal (int): Principal components, at most. (default: :obj:`64`)

    Returns:
        numpy.ndarray: Guesses, ``[Q, G]``.
    """
    held_out = len(source) // 5
    if held_out == 0 or not (np.ptp(source, axis=0).any() and np.ptp(target, axis=0).any()):
        return np.tile(target.mean(axis=0), (len(query), 1))  # There is nothing to learn.
    cut = len(source) - held_out

    def guess(count: int, items: slice, x: np.ndarray) -> np.ndarray:
        of_source, of_target, cca = _fit_cca(source[items], target[items], count, num_principal)
        return of_target.inverse_transform(cca.predict(of_source.transform(x)))

    errors = {count: float(np.square(guess(count, slice(cut), source[cut:]) - target[cut:]).sum())
              for count in num_components}
    return guess(min(errors, key=lambda count: errors[count]), slice(None), query)


def _fit_cca(source: np.ndarray, target: np.ndarray, num_components: int, num_principal: int) -> tuple[Any, Any, Any]:
    """Fits the principal components of both modalities, and the canonical ones of these."""
    import warnings

    from sklearn.cross_decomposition import CCA
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning

    size = min(num_principal, len(source) - 1, source.shape[1], target.shape[1])
    of_source = PCA(size, random_state=0).fit(source)
    of_target = PCA(size, random_state=0).fit(target)
    cca = CCA(min(num_components, size), max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)  # The last components of noise never settle.
        cca.fit(of_source.transform(source), of_target.transform(target))
    return of_source, of_target, cca


def mean_over(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of each metric over several searches.

    Args:
        found (Mapping): By search its metrics.
    """
    names = list(dict.fromkeys(name for metrics in found.values() for name in metrics))
    return {name: float(np.mean([metrics[name] for metrics in found.values()])) for name in names}
