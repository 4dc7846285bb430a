"""Bringing the features of all modalities to comparable sizes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from dgmrec_pyg.errors import UserError, near_miss
from dgmrec_pyg.imputation import observed_mean
from dgmrec_pyg.schema import ITEM, feature_key, item_features, missing_mask, modality_names


class ScaleFeatures(BaseTransform):
    r"""Scales each modality's features, with statistics of the items that have it.

    * ``'standard'``: each column gets mean 0 and variance 1; a constant column becomes zeros.
    * ``'global'``: the mean row is subtracted and everything is divided by one number, the root mean square of what is
      left. The geometry within the modality stays, and modalities of very different sizes become alike.
    * ``'unit'``: each row is divided by its Euclidean length; a row of zeros stays.
    * ``'none'``: nothing is changed.

    Rows of missing items are transformed like the others and have no part in the statistics, so NaN there stays there.
    Hide modalities before scaling, so that hidden features have no part either.

    Args:
        method (str): One of the above. (default: :obj:`'standard'`)

    Raises:
        UserError: If :obj:`method` is unknown.
    """

    def __init__(self, method: str = 'standard') -> None:
        if method not in METHODS:
            raise UserError(f"ScaleFeatures: unknown method '{method}'{near_miss(method, METHODS)} "
                            f"(known: {', '.join(METHODS)})")
        self.method = method

    def forward(self, data: HeteroData) -> HeteroData:
        for name in modality_names(data):
            x, missing = item_features(data, name), missing_mask(data, name)
            data[ITEM][feature_key(name)] = METHODS[self.method](x, missing)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(method='{self.method}')"


def _divide(x: Tensor, scale: Tensor) -> Tensor:
    """Divides by the scale, or by 1 where that is zero."""
    return x / torch.where(scale > 0, scale, 1).to(x.dtype)


def _standard(x: Tensor, missing: Tensor) -> Tensor:
    centered = x - observed_mean(x, missing)
    return _divide(centered, observed_mean(centered.square(), missing).sqrt())


def _global(x: Tensor, missing: Tensor) -> Tensor:
    centered = x - observed_mean(x, missing)
    return _divide(centered, observed_mean(centered.square(), missing).mean().sqrt())


def _unit(x: Tensor, missing: Tensor) -> Tensor:
    return functional.normalize(x, dim=1)


def _none(x: Tensor, missing: Tensor) -> Tensor:
    return x


# Name -> function of (x, missing) that returns the scaled features.
METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    'standard': _standard,
    'global': _global,
    'unit': _unit,
    'none': _none,
}
