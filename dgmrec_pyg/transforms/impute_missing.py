"""Imputation as a transform."""

from __future__ import annotations

from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from dgmrec_pyg.imputation import check_method, impute
from dgmrec_pyg.schema import ITEM, feature_key, item_features, missing_mask, modality_names


class ImputeMissing(BaseTransform):
    r"""Fills in the features of items that lack a modality, from the items that have it.

    Replaces the missing rows of each ``x_<modality>`` and sets ``data['item'].imputed`` to the method's name, by which
    a model sees that there is nothing left to impute. The masks stay, so the model still knows which features are real.
    See :func:`dgmrec_pyg.imputation.impute` for the methods; a modality that no item has becomes zeros.

    Args:
        method (str): ``'mean'`` of the observed items or ``'zero'``. (default: :obj:`'mean'`)

    Raises:
        UserError: If :obj:`method` is unknown.
    """

    def __init__(self, method: str = 'mean') -> None:
        check_method(method)
        self.method = method

    def forward(self, data: HeteroData) -> HeteroData:
        for name in modality_names(data):
            data[ITEM][feature_key(name)] = impute(item_features(data, name), missing_mask(data, name), self.method)
        data[ITEM].imputed = self.method
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(method='{self.method}')"
