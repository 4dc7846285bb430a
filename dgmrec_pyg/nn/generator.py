"""Making the features that an item lacks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Linear, Sequential, Tanh
from torch_geometric.nn.module_dict import ModuleDict

from dgmrec_pyg.errors import UserError, check_name
from dgmrec_pyg.nn.checks import check_part, check_rows
from dgmrec_pyg.nn.wide_linear import linear_mse_loss

_BLOCK_ROWS = 512  # of noise, which on CPU stays in the cache while it is made


def perturb(x: Tensor, scale: float = 0.1, generator: torch.Generator | None = None) -> Tensor:
    r"""Adds noise of length :obj:`scale` to each row, in the row's own orthant:
    :math:`\mathbf{x} + s \cdot \mathrm{sign}(\mathbf{x}) \odot \mathbf{n} / |\mathbf{n}|` with uniform
    :math:`\mathbf{n}`, as in `"Are Graph Augmentations Necessary?" <https://arxiv.org/abs/2112.08679>`_ (SimGCL).

    Args:
        x (torch.Tensor): Rows, ``[N, C]``.
        scale (float): Length of the noise; 0 returns :obj:`x` itself. (default: :obj:`0.1`)
        generator (torch.Generator, optional): Draws the noise, on the device of :obj:`x`.
            (default: the global one)
    """
    if scale == 0.0:
        return x
    noise = torch.empty(x.shape, device=x.device, dtype=x.dtype)
    size = x.size(0) if x.is_cuda else _BLOCK_ROWS
    for rows, given in zip(noise.split(size), x.detach().split(size), strict=True):
        length = _fill_uniform(rows, generator).norm(dim=1, keepdim=True).clamp(min=1e-12)
        rows.mul_(given.sign()).mul_(scale / length)
    return x + noise if x.requires_grad else noise.add_(x)


def _fill_uniform(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Fills a tensor with uniform multiples of 2**-15 from 0 to 1, four of which are cut from one draw of 64 bits:
    drawing each by itself takes a twentieth of a step on CPU."""
    drawn = torch.randint(-2**63, 2**63 - 1, (-(-x.numel() // 4), ), generator=generator, device=x.device)
    return x.copy_(drawn.view(torch.int16)[:x.numel()].view(x.shape)).mul_(2.0**-15).abs_()


class ModalityGenerator(torch.nn.Module):
    r"""Generates missing modalities, from the `"Disentangling and Generating Modalities for Recommendation in
    Missing Modality Scenarios" <https://arxiv.org/abs/2504.16352>`_ paper: the general part is translated from the
    general parts of the other modalities, the specific part comes from the preferences of the item's users, and a
    decoder turns the two into features.

    .. math::
        \hat{\mathbf{G}}_m = \mathrm{trans}_m\left(\Vert_{o \neq m} \mathbf{G}_o\right) \qquad
        \hat{\mathbf{S}}_m = \mathrm{gen}_m(\mathbf{P}_m) \qquad
        \hat{\mathbf{X}}_m = \mathrm{dec}_m(\hat{\mathbf{G}}_m \Vert \hat{\mathbf{S}}_m)

    Translators and specific generators are two linear layers with a tanh between them; decoders are linear. The other
    modalities are concatenated in the order of their names, whatever the order of the input.

    Noise (:func:`perturb`) is added where a call names its length: DGMRec's losses perturb the input of whatever part
    they train, and its generation of features, like :meth:`forward`, the decoder's input alone.

    Args:
        in_channels (dict): For each modality the size of its features; two or more modalities.
        hidden_channels (int): The size :math:`d` of both parts. (default: :obj:`64`)
        noise_scale (float): Length of the noise that :meth:`forward` adds to the decoder's input in training mode.
            (default: :obj:`0.1`)

    Shapes:
        - **general, preference:** for each modality :math:`(I, d)`
        - **output:** for each modality :math:`(I, F_m)`

    Raises:
        UserError: If there are fewer than two modalities, and from each method, if a modality is not known or
            something is of another size.
    """

    def __init__(self, in_channels: Mapping[str, int], hidden_channels: int = 64, noise_scale: float = 0.1) -> None:
        super().__init__()
        self.in_channels = dict(sorted(in_channels.items()))
        if len(self.in_channels) < 2:
            raise UserError(f'generation needs two or more modalities (got {list(self.in_channels)})')
        self.hidden_channels = hidden_channels
        self.noise_scale = noise_scale
        others = (len(self.in_channels) - 1) * hidden_channels
        self.translator = ModuleDict({m: _two_layers(others, hidden_channels) for m in self.in_channels})
        self.specific = ModuleDict({m: _two_layers(hidden_channels, hidden_channels) for m in self.in_channels})
        self.decoder = ModuleDict({m: Linear(2 * hidden_channels, size) for m, size in self.in_channels.items()})

    def translate(self, modality: str, general: Mapping[str, Tensor], noise_scale: float = 0.0,
                  generator: torch.Generator | None = None) -> Tensor:
        """Makes the general part of a modality from those of all others, ``[I, d]``.

        Args:
            modality (str): The modality to make.
            general (Mapping[str, torch.Tensor]): General parts by modality; the one of :obj:`modality` is not used.
            noise_scale (float): Length of the noise on the input. (default: :obj:`0.0`)
            generator (torch.Generator, optional): Draws the noise. (default: the global one)
        """
        check_name('modality', modality, self.in_channels)
        others = [check_part('general part', general, other, self.hidden_channels)
                  for other in self.in_channels if other != modality]
        for other in others[1:]:
            check_rows('each general part', other, num_rows=others[0].size(0))
        return self.translator[modality](perturb(torch.cat(others, dim=1), noise_scale, generator))

    def generate_specific(self, modality: str, preference: Tensor, noise_scale: float = 0.0,
                          generator: torch.Generator | None = None) -> Tensor:
        """Makes the specific part of a modality from the preferences of the items' users, ``[I, d]``.

        Args:
            modality (str): The modality to make.
            preference (torch.Tensor): The items' preferences in this modality, ``[I, d]``.
            noise_scale (float): Length of the noise on the input. (default: :obj:`0.0`)
            generator (torch.Generator, optional): Draws the noise. (default: the global one)
        """
        check_name('modality', modality, self.in_channels)
        check_rows(f"the preference in '{modality}'", preference, self.hidden_channels)
        return self.specific[modality](perturb(preference, noise_scale, generator))

    def decode(self, modality: str, general: Tensor, specific: Tensor, noise_scale: float = 0.0,
               generator: torch.Generator | None = None) -> Tensor:
        """Turns both parts into features of a modality, ``[I, F_m]``.

        Args:
            modality (str): The modality to make.
            general (torch.Tensor): General parts, ``[I, d]``.
            specific (torch.Tensor): Specific parts, ``[I, d]``.
            noise_scale (float): Length of the noise on both, side by side. (default: :obj:`0.0`)
            generator (torch.Generator, optional): Draws the noise. (default: the global one)
        """
        check_name('modality', modality, self.in_channels)
        check_rows('general parts', general, self.hidden_channels)
        check_rows('specific parts', specific, self.hidden_channels, general.size(0))
        return self.decoder[modality](perturb(torch.cat([general, specific], dim=1), noise_scale, generator))

    def reconstruction_loss(self, modality: str, parts: Tensor, target: Tensor, noise_scale: float = 0.0,
                            generator: torch.Generator | None = None) -> Tensor:
        """Computes the mean squared error of :meth:`decode` without keeping what it decodes, a scalar.

        Args:
            modality (str): The modality to make.
            parts (torch.Tensor): General and specific parts side by side, ``[I, 2 * d]``.
            target (torch.Tensor): What the features should be, ``[I, F_m]``.
            noise_scale (float): Length of the noise on :obj:`parts`. (default: :obj:`0.0`)
            generator (torch.Generator, optional): Draws the noise. (default: the global one)
        """
        check_name('modality', modality, self.in_channels)
        check_rows('parts', parts, 2 * self.hidden_channels)
        check_rows(f"features '{modality}'", target, self.in_channels[modality], parts.size(0))
        decoder = self.decoder[modality]
        return linear_mse_loss(perturb(parts, noise_scale, generator), decoder.weight, decoder.bias, target)

    def forward(self, general: Mapping[str, Tensor], preference: Mapping[str, Tensor],
                generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Generates every modality of every item.

        Args:
            general (Mapping[str, torch.Tensor]): General parts by modality, as
                :class:`~dgmrec_pyg.nn.DisentangledEncoder` gives them.
            preference (Mapping[str, torch.Tensor]): Item preferences by modality, as
                :class:`~dgmrec_pyg.nn.ModalityPreference` gives them.
            generator (torch.Generator, optional): Draws the noise, which is added to the decoder's input alone, and in
                training mode only. (default: the global one)
        """
        scale = self.noise_scale if self.training else 0.0
        wanted = {m: check_part('preference', preference, m, self.hidden_channels) for m in self.in_channels}
        return {
            modality: self.decode(modality, self.translate(modality, general),
                                  self.generate_specific(modality, wanted[modality]), scale, generator)
            for modality in self.in_channels
        }

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_channels}, {self.hidden_channels})'


def _two_layers(in_channels: int, out_channels: int) -> Sequential:
    return Sequential(Linear(in_channels, out_channels), Tanh(), Linear(out_channels, out_channels))
