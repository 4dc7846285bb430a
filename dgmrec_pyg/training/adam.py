"""Adam on tables that are so large that their whole gradient is better never made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.optim.adam import adam

from dgmrec_pyg.nn.models.base import Recommender


def make_state(optimizer: torch.optim.Adam) -> None:
    """Makes what Adam keeps of each parameter, as its first step would, where it is not there yet: before a step, it
    does not come to stand among what the step frees.

    Args:
        optimizer (torch.optim.Adam): The optimizer.
    """
    for group in optimizer.param_groups:
        for parameter in group['params']:
            if not optimizer.state[parameter]:
                optimizer.state[parameter] = {
                    'step': torch.zeros((), dtype=torch.float32, device=parameter.device),
                    'exp_avg': torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    'exp_avg_sq': torch.zeros_like(parameter, memory_format=torch.preserve_format),
                }


@contextmanager
def tables_stepped_by_rows(model: Recommender, optimizer: torch.optim.Adam) -> Iterator[None]:
    """Lets the backward pass itself step a model's tables, those of its method ``give_table_gradients``,
    block of rows by block of rows. They have no gradient then, and ``optimizer.step()`` leaves them alone.

    Args:
        model (Recommender): The model.
        optimizer (torch.optim.Adam): The optimizer, fused, with its state made by :func:`make_state`.
    """
    model.give_table_gradients(lambda table: partial(_step, optimizer, table))
    try:
        yield
    finally:
        model.give_table_gradients(None)


def _step(optimizer: torch.optim.Adam, table: Tensor, blocks: Iterator[tuple[slice, Tensor]]) -> None:
    """One step of a table."""
    group = next(group for group in optimizer.param_groups if any(table is other for other in group['params']))
    state, (beta1, beta2) = optimizer.state[table], group['betas']
    for rows, gradient in blocks:
        # Each block counts the step, in a counter of its own.
        adam([table[rows]], [gradient], [state['exp_avg'][rows]], [state['exp_avg_sq'][rows]], [],
             [state['step'].clone()], fused=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=group['lr'],
             weight_decay=group['weight_decay'], eps=group['eps'], maximize=False)
    state['step'] += 1
    torch.autograd.graph.increment_version(table)  # Fused kernels do not, and a second reader would not be noticed.
