"""How near the generated features of missing modalities come to the true ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dgmrec_pyg.evaluation.slices import missing_patterns
from dgmrec_pyg.imputation import observed_mean
from dgmrec_pyg.schema import is_true_feature

# A feature row this near to the mean, relative to the size of the features, differs from it by rounding only.
_ROUNDING = 1e-5
_BLOCK_VALUES = 2**20  # compared at a time, since features can be most of what a process holds


def generation_quality(
    generated: Mapping[str, Tensor],
    imputed: Mapping[str, Tensor],
    truth: Mapping[str, Tensor],
    missing: Mapping[str, Tensor],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns the mean cosine similarity of generated and of imputed features to the true ones.

    Only items that lack the modality and whose true features are known are compared. ``cosine`` is taken of the
    features as they are, ``centered_cosine`` after subtracting the mean of the observed items: features that share a
    large mean are all similar to each other, so only the second tells items apart. Imputing the mean gives the zero
    vector there, whose cosine is 0 by definition.

    .. code-block:: python

        {'image': {'missing:image': {'num_items': 12,
                                     'cosine': {'generated': 0.9, 'imputed': 0.8},
                                     'centered_cosine': {'generated': 0.4, 'imputed': 0.0}},
                   'all': {...}}}

    Args:
        generated (Mapping[str, torch.Tensor]): For each modality the features ``[num_items, F]`` with generated rows
            where the item lacks it.
        imputed (Mapping[str, torch.Tensor]): The same with imputed rows.
        truth (Mapping[str, torch.Tensor]): The true features; rows that are not finite, or nothing but
            zeros, are unknown. Modalities that are not in it are left out.
        missing (Mapping[str, torch.Tensor]): For each modality the bool mask ``[num_items]`` of items that lack it.

    Returns:
        dict: For each modality and each pattern of :func:`~dgmrec_pyg.evaluation.slices.missing_patterns` (and
        ``all``, every pattern together) the number of items compared and their mean cosines. Patterns and modalities
        without such items are left out.
    """
    patterns = missing_patterns(missing)
    result = {}
    for modality in sorted(truth):
        true, lacks = truth[modality], missing[modality]
        hidden = (_by_blocks(is_true_feature, true) & lacks).nonzero().view(-1)
        if hidden.numel() == 0:
            continue
        known = _by_blocks(lambda rows: rows.isfinite().all(dim=1), true)
        mean = observed_mean(true, lacks | ~known)
        cosines = {'generated': _cosines(generated[modality], true, mean, hidden),
                   'imputed': _cosines(imputed[modality], true, mean, hidden)}
        rows = {name: mask[hidden] for name, mask in patterns.items()}
        rows['all'] = torch.ones_like(hidden, dtype=torch.bool)
        result[modality] = {name: _means(cosines, mask) for name, mask in rows.items() if mask.any()}
    return result


def center(features: Tensor, mean: Tensor) -> Tensor:
    """Returns features less the mean of the observed ones, ``[N, F]``; zeros where they are the mean but for rounding,
    which would point anywhere.

    Args:
        features (torch.Tensor): ``[N, F]``.
        mean (torch.Tensor): ``[F]``.
    """
    difference = features - mean
    is_mean = difference.norm(dim=1) <= _ROUNDING * torch.maximum(features.norm(dim=1), mean.norm())
    return difference.masked_fill(is_mean.unsqueeze(1), 0.0)


def _rows_per_block(x: Tensor) -> int:
    return max(1, _BLOCK_VALUES // max(1, x.size(1)))


def _by_blocks(judge: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What a function says of each row, ``[N]``."""
    return torch.cat([judge(rows) for rows in x.split(_rows_per_block(x))])


def _cosines(table: Tensor, true: Tensor, mean: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """The cosines of some rows with the true ones, as they are and centered, ``[N]`` each."""
    plain, centered = [], []
    for block in items.split(_rows_per_block(true)):
        ours, theirs = table[block], true[block]
        plain.append(F.cosine_similarity(ours, theirs, dim=1))
        centered.append(F.cosine_similarity(center(ours, mean), center(theirs, mean), dim=1))
    return torch.cat(plain), torch.cat(centered)


def _means(cosines: Mapping[str, tuple[Tensor, Tensor]], rows: Tensor) -> dict[str, Any]:
    return {'num_items': int(rows.sum()),
            'cosine': {name: float(plain[rows].mean()) for name, (plain, _) in cosines.items()},
            'centered_cosine': {name: float(centered[rows].mean()) for name, (_, centered) in cosines.items()}}
