"""What users look for in each modality, and what an item's buyers look for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear
from torch_geometric.nn.module_dict import ModuleDict
from torch_geometric.typing import Adj, OptTensor

from dgmrec_pyg.nn.checks import check_modalities, check_rows
from dgmrec_pyg.nn.conv import LightGCNConv
from dgmrec_pyg.nn.tanh import tanh_of_linear


class ModalityPreference(torch.nn.Module):
    r"""Modality preferences from the `"Disentangling and Generating Modalities for Recommendation in Missing Modality
    Scenarios" <https://arxiv.org/abs/2504.16352>`_ paper. A user's preference is
    :math:`\tanh(\mathbf{Q}_m \mathbf{e}_u)`; an item's is the mean over the users who bought it:

    .. math::
        \mathbf{P}_m = \frac{\mathbf{R}^\top \tanh(\mathbf{E} \mathbf{Q}_m)}{\deg_i + 10^{-7}}

    An item that nobody bought has preference zero.

    Args:
        modalities (iterable): Names of the modalities.
        hidden_channels (int): The size :math:`d` of user embeddings and preferences. (default: :obj:`64`)

    Shapes:
        - **user_embedding:** :math:`(U, d)`
        - **edge_index:** (user, item) pairs :math:`(2, E)`
        - **output:** for each modality :math:`(I, d)`
    """

    def __init__(self, modalities: Iterable[str], hidden_channels: int = 64) -> None:
        super().__init__()
        self.modalities = check_modalities(modalities)
        self.hidden_channels = hidden_channels
        self.lin = ModuleDict({m: Linear(hidden_channels, hidden_channels, bias=False) for m in self.modalities})
        self.conv = LightGCNConv(normalize=False)

    def user_preference(self, user_embedding: Tensor) -> Tensor:
        """Computes the users' preferences, the modalities side by side, ``[U, M * d]``."""
        check_rows('user_embedding', user_embedding, self.hidden_channels)
        weight = torch.cat([self.lin[modality].weight for modality in self.modalities])
        return tanh_of_linear(user_embedding, weight)

    def forward(self, user_embedding: Tensor, edge_index: Adj, edge_weight: OptTensor = None,
                num_items: int | None = None) -> dict[str, Tensor]:
        """Computes the items' preferences.

        Args:
            user_embedding (torch.Tensor): The users' id embeddings.
            edge_index (torch.Tensor, EdgeIndex or SparseTensor): Who bought what.
            edge_weight (torch.Tensor, optional): Weights that turn the sum over an item's users into their mean;
                without them the mean is taken here.
            num_items (int, optional): Number of items; needed with a plain edge list. (default: :obj:`None`)

        Raises:
            UserError: If the number of items is not known, or something does not fit.
        """
        size = None if num_items is None else (user_embedding.size(0), num_items)
        preference = self.conv((self.user_preference(user_embedding), None), edge_index, edge_weight, size=size)
        if edge_weight is None:
            ones = user_embedding.new_ones(user_embedding.size(0), 1)
            preference = preference / (self.conv((ones, None), edge_index, size=size) + 1e-7)
        return dict(zip(self.modalities, preference.split(self.hidden_channels, dim=1), strict=True))

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.modalities}, {self.hidden_channels})'


def filter_features(encoded: Tensor, preference: Tensor) -> Tensor:
    r"""Filters the general and the specific part of items by what their users look for:
    :math:`(\mathbf{P} \odot \mathbf{G}) \, \Vert \, (\mathbf{P} \odot \mathbf{S})`, ``[I, 2 * d]``.

    Args:
        encoded (torch.Tensor): General and specific parts side by side, ``[I, 2 * d]``.
        preference (torch.Tensor): Preferences, ``[I, d]``.
    """
    return _Filter.apply(encoded, preference)


class _Filter(torch.autograd.Function):
    """Written with plain operations, the gradient of the preferences would go through a temporary twice its size."""

    @staticmethod
    def forward(ctx: Any, encoded: Tensor, preference: Tensor) -> Tensor:
        ctx.save_for_backward(encoded, preference)
        return _times(encoded, preference)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        encoded, preference = ctx.saved_tensors
        (general, specific), (of_general, of_specific) = encoded.chunk(2, dim=1), grad_outputs[0].chunk(2, dim=1)
        return _times(grad_outputs[0], preference), (of_general * general).addcmul_(of_specific, specific)


def _times(both: Tensor, preference: Tensor) -> Tensor:
    return (both.unflatten(1, (2, -1)) * preference.unsqueeze(1)).flatten(1)
