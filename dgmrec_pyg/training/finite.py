"""Stopping at the first loss that is no number."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

TOTAL = 'total'
"""Name of the weighted sum among the terms."""


class NotFinite(ArithmeticError):
    """A term of the loss, or their sum, is NaN or infinite.

    Args:
        step (int): The step of the epoch, from 1.
        terms (dict): The values of all terms and of their :obj:`TOTAL` in this step.
        batch (tuple): What the step was computed from.
    """

    def __init__(self, step: int, terms: dict[str, float], batch: tuple[Tensor, ...]) -> None:
        self.step = step
        self.terms = terms
        self.batch = batch
        bad = [f'{name} {value}' for name, value in terms.items() if not math.isfinite(value)]
        # The sum says nothing that its terms do not say.
        super().__init__(', '.join(bad[:-1] or bad))


class _Step(NamedTuple):
    number: int
    names: list[str]
    values: Tensor
    copied: torch.cuda.Event | None
    batch: tuple[Tensor, ...]

    def has_arrived(self) -> bool:
        return self.copied is None or self.copied.query()


class LossWatch:
    """Adds up the terms of an epoch's steps and stops at the first step where one is not finite.

    On CPU a step is looked at before its gradient is taken, so that the parameters are still those that gave the bad
    value. On CUDA looking would make the host wait for the device: there the values are copied in the background and
    looked at once they have arrived, which is a few steps later, and at the end of the epoch at the latest.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._num_steps = 0
        self._on_the_way: deque[_Step] = deque()

    def add(self, terms: dict[str, Tensor], total: Tensor, batch: tuple[Tensor, ...]) -> None:
        """Takes note of one step.

        Args:
            terms (dict): The terms, scalars.
            total (torch.Tensor): Their weighted sum, a scalar.
            batch (tuple): What they were computed from.

        Raises:
            NotFinite: If a value of this step, or on CUDA of an earlier one, is NaN or infinite.
        """
        self._num_steps += 1
        values, copied = _on_the_host(torch.stack([*terms.values(), total]).detach())
        self._on_the_way.append(_Step(self._num_steps, [*terms, TOTAL], values, copied, batch))
        while self._on_the_way and self._on_the_way[0].has_arrived():
            self._look_at(self._on_the_way.popleft())

    def means(self) -> dict[str, float]:
        """Returns the mean of each term, and of :obj:`TOTAL`, over all steps.

        Raises:
            NotFinite: If a value that was still on its way is NaN or infinite.
        """
        while self._on_the_way:
            step = self._on_the_way.popleft()
            if step.copied is not None:
                step.copied.synchronize()
            self._look_at(step)
        return {name: value / self._num_steps for name, value in self._sums.items()}

    def _look_at(self, step: _Step) -> None:
        terms = dict(zip(step.names, step.values.tolist(), strict=True))
        if not all(map(math.isfinite, terms.values())):
            raise NotFinite(step.number, terms, step.batch)
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value


def is_finite(x: Tensor) -> Tensor:
    """Returns whether there is no NaN and nothing infinite in a tensor, a scalar of bool. ``x.isfinite().all()`` makes
    temporaries of its size, which matter where it is a table of features.

    Args:
        x (torch.Tensor): Any numbers.
    """
    if x.numel() == 0:
        return torch.ones((), dtype=torch.bool, device=x.device)
    return torch.stack(torch.aminmax(x)).isfinite().all()


def _on_the_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """The values, of CUDA a copy that is complete once the event has happened."""
    if not values.is_cuda:
        return values, None
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copy.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return copy, copied
