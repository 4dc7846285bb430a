"""Splitting features into a part that modalities share and a part of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear
from torch_geometric.nn.module_dict import ModuleDict

from dgmrec_pyg.nn.checks import check_feature_sizes
from dgmrec_pyg.nn.products import times_transposed, weight_gradient
from dgmrec_pyg.nn.tanh import tanh
from dgmrec_pyg.nn.wide_linear import TakeGradient, linear_and_features


class DisentangledEncoder(torch.nn.Module):
    r"""Encodes each modality into a general and a specific part, from the `"Disentangling and Generating Modalities
    for Recommendation in Missing Modality Scenarios" <https://arxiv.org/abs/2504.16352>`_ paper:

    .. math::
        \mathbf{G}_m = \sigma(\mathrm{shared}(\tanh(\mathrm{enc}_m(\mathbf{X}_m)))) \qquad
        \mathbf{S}_m = \sigma(\mathrm{spec}_m(\mathbf{X}_m))

    All maps are linear; ``shared`` is one layer for all modalities.

    Args:
        in_channels (dict): For each modality the size of its features.
        hidden_channels (int): The size :math:`d` of both parts. (default: :obj:`64`)

    Shapes:
        - **input:** for each modality :math:`(I, F_m)`
        - **output:** two dicts with, for each modality of the input, :math:`(I, d)`
    """

    def __init__(self, in_channels: Mapping[str, int], hidden_channels: int = 64) -> None:
        super().__init__()
        self.in_channels = dict(sorted(in_channels.items()))
        self.hidden_channels = hidden_channels
        self.general = ModuleDict({m: Linear(size, hidden_channels) for m, size in self.in_channels.items()})
        self.specific = ModuleDict({m: Linear(size, hidden_channels) for m, size in self.in_channels.items()})
        self.shared = Linear(hidden_channels, hidden_channels)

    def forward(self, features: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Encodes the modalities given, which may be some of the known ones.

        Args:
            features (Mapping[str, torch.Tensor]): For each modality its features, of the same items. What is missing
                has to be filled in, such as by :class:`~dgmrec_pyg.transforms.ImputeMissing`: a row of NaN stays one.

        Returns:
            tuple: General parts and specific parts by modality.

        Raises:
            UserError: If a modality is not known, or its features are of another size.
        """
        encoded, _ = self.encode(features)
        parts = {modality: both.chunk(2, dim=1) for modality, both in encoded.items()}
        return {m: general for m, (general, _) in parts.items()}, {m: specific for m, (_, specific) in parts.items()}

    def encode(self, features: Mapping[str, Tensor], take: Mapping[str, TakeGradient] | None = None
               ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Encodes the modalities given and passes their features on; a loss that reads them from here costs less
        memory (see :func:`~dgmrec_pyg.nn.wide_linear.linear_and_features`).

        Args:
            features (Mapping[str, torch.Tensor]): For each modality its features.
            take (Mapping[str, Callable], optional): What takes the gradient of a modality's features.
                (default: nothing)

        Returns:
            tuple: By modality the general and the specific part side by side, ``[I, 2 * d]``, and the features.
        """
        check_feature_sizes(features, self.in_channels)
        encoded, passed = {}, {}
        for modality, x in features.items():
            first, second = self.general[modality], self.specific[modality]
            # Both read the same wide features: one product instead of two.
            both, passed[modality] = linear_and_features(x, torch.cat([first.weight, second.weight]),
                                                         torch.cat([first.bias, second.bias]),
                                                         (take or {}).get(modality))
            encoded[modality] = _both_parts(both, self.shared.weight, self.shared.bias)
        return encoded, passed

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_channels}, {self.hidden_channels})'


def _both_parts(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Makes the general and the specific part of what both layers gave, ``[N, 2 * d]``, over which they are written."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(hidden.device.type):
        first, own = hidden.chunk(2, dim=1)
        return torch.cat([F.linear(first.tanh(), weight, bias), own], dim=1).sigmoid()
    return _BothParts.apply(hidden, weight, bias)


class _BothParts(torch.autograd.Function):
    """Written with plain operations, halves of tables would be cut out and joined again in both directions."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.mark_dirty(hidden)
        half = hidden[:, :weight.size(0)]
        activated = tanh(half)
        half.copy_(times_transposed(activated, weight, bias))
        ctx.save_for_backward(activated, weight, hidden.sigmoid_())
        return hidden

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        activated, weight, encoded = ctx.saved_tensors
        grad = torch.ops.aten.sigmoid_backward(grad_outputs[0], encoded)
        half = grad[:, :weight.size(0)]
        of_general = half.contiguous()  # Of a single row, the same memory: it is read before it is written over.
        of_activated = times_transposed(of_general, weight.t())
        of_weight, of_bias = weight_gradient(of_general, activated), of_general.sum(dim=0)
        torch.ops.aten.tanh_backward.grad_input(of_activated, activated, grad_input=half)
        return grad, of_weight, of_bias
