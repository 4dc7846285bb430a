"""Checks of what a checkpoint holds, where using it as it stands would end the process or fail much later."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dgmrec_pyg.training.finite import is_finite

_RECORD_KEYS = {'epoch', 'loss', 'terms', 'train_seconds', 'eval_seconds', 'val'}


def load_model(model: torch.nn.Module, state: dict[str, Any]) -> None:
    """Puts back the state of a model.

    Args:
        model (torch.nn.Module): The model.
        state (dict): What its ``state_dict`` returned.

    Raises:
        ValueError: If a parameter or a buffer is not finite, as none that was written ever is.
    """
    model.load_state_dict(state)
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if not is_finite(value):
            raise ValueError(f"'{name}' is not finite")


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], learning_rate: float) -> None:
    """Puts back the state of an Adam optimizer; of its settings only the learning rate is taken over, to the bit.

    Args:
        optimizer (torch.optim.Optimizer): The optimizer, as made anew.
        state (dict): What its ``state_dict`` returned.
        learning_rate (float): What the learning rate of the state must be.

    Raises:
        ValueError: If the state does not fit the parameters (fused kernels read and write past such tensors) or the
            learning rate, or holds numbers that Adam never makes.
    """
    parameters = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group['params']))
    for index, values in state['state'].items():
        _check_moments(values, parameters[index])
    groups = optimizer.state_dict()['param_groups']
    for group, saved in zip(groups, state['param_groups'], strict=True):
        if not isinstance(saved['lr'], float):
            raise ValueError('the learning rate is not a number')
        if not math.isclose(saved['lr'], learning_rate, rel_tol=1e-6):
            raise ValueError(f"the learning rate is {saved['lr']}, not {learning_rate}")
        group['lr'] = saved['lr']
    optimizer.load_state_dict({'state': state['state'], 'param_groups': groups})


def _check_moments(values: dict[str, Tensor], parameter: Tensor) -> None:
    if values.keys() != {'step', 'exp_avg', 'exp_avg_sq'}:
        raise ValueError('the optimizer is of another kind')
    step = values['step']
    if step.shape != () or not step.is_floating_point() or not 0 <= step < math.inf:
        raise ValueError("the optimizer's step is not a count")
    fresh = torch.empty_like(parameter, device='meta')  # As Adam makes them: contiguous where the parameter is.
    for name in ('exp_avg', 'exp_avg_sq'):
        value = values[name]
        if (value.shape, value.dtype, value.stride()) != (fresh.shape, fresh.dtype, fresh.stride()):
            raise ValueError(f"the optimizer's {name} does not fit its parameter of shape {list(parameter.shape)}")
        if not is_finite(value):
            raise ValueError(f"the optimizer's {name} is not finite")
    if step == 0 and (values['exp_avg'].any() or values['exp_avg_sq'].any()):
        raise ValueError("the optimizer's step is not a count of the gradients in its moments")
    if (values['exp_avg_sq'] < 0).any():
        raise ValueError("the optimizer's exp_avg_sq, a mean of squares, is negative")


def check_fit(state: dict[str, Any], metric: str) -> None:
    """Checks that the records of a fit are all there, and its best epoch among them.

    Args:
        state (dict): ``best_epoch``, ``best_val``, ``epoch`` and ``records``.
        metric (str): What every evaluation must hold.

    Raises:
        ValueError: If they are not.
    """
    best, epoch, records = state['best_epoch'], state['epoch'], state['records']
    if type(epoch) is not int or not isinstance(records, list) or len(records) != epoch:  # First: it may be huge.
        raise ValueError('the records of the epochs are not all there')
    for number, record in enumerate(records, start=1):
        if not _is_record(record, number, metric):
            raise ValueError(f'the record of epoch {number} is not whole')
    if type(best) is not int or not 0 <= best <= epoch:
        raise ValueError('the best epoch is none of those trained')
    if not _are_numbers(state['best_val']) or state['best_val'] != (records[best - 1]['val'] if best else {}):
        raise ValueError(f'epoch {best} is not the best')


def _is_record(record: Any, number: int, metric: str) -> bool:
    if not isinstance(record, dict) or record.keys() != _RECORD_KEYS:
        return False
    val = record['val']
    return (type(record['epoch']) is int and record['epoch'] == number
            and _are_numbers({key: record[key] for key in ('loss', 'train_seconds', 'eval_seconds')})
            and _are_numbers(record['terms']) and (val is None or (_are_numbers(val) and metric in val)))


def _are_numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(name, str) and isinstance(value, float) and math.isfinite(value)
                                            for name, value in values.items())
