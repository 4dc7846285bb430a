"""How near the generated features of missing modalities come to the true ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dgmrec_pyg.evaluation.slices import missing_patterns
from dgmrec_pyg.imputation import observed_mean
from dgmrec_pyg.schema import is_true_feature

# A feature row this near to the mean, relative to the size of the features, differs from it by rounding only.
_ROUNDING = 1e-5


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
        true = truth[modality]
        known = true.isfinite().all(dim=1)
        mean = observed_mean(true, missing[modality] | ~known)
        tables = {'true': true, 'generated': generated[modality], 'imputed': imputed[modality]}
        hidden = is_true_feature(true) & missing[modality]
        rows = {**{name: mask & hidden for name, mask in patterns.items()}, 'all': hidden}
        quality = {name: _compare({key: table[mask] for key, table in tables.items()}, mean)
                   for name, mask in rows.items() if mask.any()}
        if quality:
            result[modality] = quality
    return result


def _compare(tables: Mapping[str, Tensor], mean: Tensor) -> dict[str, Any]:
    centered = {name: _center(table, mean) for name, table in tables.items()}
    return {'num_items': tables['true'].size(0), 'cosine': _cosines(tables), 'centered_cosine': _cosines(centered)}


def _cosines(tables: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(F.cosine_similarity(tables[name], tables['true'], dim=1).mean())
            for name in ('generated', 'imputed')}


def _center(features: Tensor, mean: Tensor) -> Tensor:
    difference = features - mean
    is_mean = difference.norm(dim=1) <= _ROUNDING * torch.maximum(features.norm(dim=1), mean.norm())
    return difference.masked_fill(is_mean.unsqueeze(1), 0.0)
