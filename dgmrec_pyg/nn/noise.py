"""Randomness inside models, drawn from a given generator."""

from __future__ import annotations

import torch
from torch import Tensor


def dropout(x: Tensor, rate: float, generator: torch.Generator | None = None) -> Tensor:
    """Sets a random share of the values to zero and scales the others up, so that the expected value stays.

    :func:`torch.nn.functional.dropout` does the same, but takes no generator.

    Args:
        x (torch.Tensor): Any values.
        rate (float): The share, in 0..1; 0 returns :obj:`x` itself.
        generator (torch.Generator, optional): Draws them, on the device of :obj:`x`. (default: the global one)
    """
    if rate == 0.0:
        return x
    if rate == 1.0:
        return x * 0.0
    keep = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) >= rate
    return x * keep / (1.0 - rate)


def gumbel_noise(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    r"""Draws noise of the standard Gumbel distribution, of the shape of :obj:`x`: added to logits, it makes their
    softmax a relaxed random choice (`"Categorical Reparameterization with Gumbel-Softmax"
    <https://arxiv.org/abs/1611.01144>`_, equation 1).

    Args:
        x (torch.Tensor): The logits, whose values are not used.
        generator (torch.Generator, optional): Draws it, on the device of :obj:`x`. (default: the global one)
    """
    exponential = torch.empty_like(x, requires_grad=False).exponential_(generator=generator)
    # An exponential of exactly zero would give infinite noise.
    return -exponential.clamp_(min=torch.finfo(x.dtype).tiny).log()
