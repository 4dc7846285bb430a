"""The losses that DGMRec and its peers are trained with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dgmrec_pyg.nn.products import times_transposed

_BLOCK_ROWS = 256  # of logits; on CPU such a block stays in the cache
_CUDA_BLOCK_LOGITS = 2**26  # of the softmax: a quarter of a gigabyte
_PADDED_ROWS = 128  # Numbers of rows are rounded up to a multiple.
_SHORTEST = 1e-12  # length by which a row is divided


def bpr_loss(positive: Tensor, negative: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Bayesian personalized ranking, from the `"BPR: Bayesian Personalized Ranking from Implicit Feedback"
    <https://arxiv.org/abs/1205.2618>`_ paper: the mean of :math:`-\log \sigma(s^+ - s^-)`.

    Args:
        positive (torch.Tensor): Scores of the positives, ``[B]``.
        negative (torch.Tensor): Scores of the negatives, ``[B]``.
        weight (torch.Tensor, optional): Weight of each pair in the mean, positive, ``[B]``. (default: equal)
    """
    losses = -F.logsigmoid(positive - negative)
    return losses.mean() if weight is None else (losses * weight).sum() / weight.sum()


def embedding_reg(*rows: Tensor) -> Tensor:
    """Computes half the squared norm of a batch's embeddings per member, as in LightGCN (equation 15), a scalar.

    Args:
        *rows (torch.Tensor): Embeddings of the members' users or items, ``[B, C]`` each.
    """
    return torch.stack([x.square().sum() for x in rows]).sum() / (2 * rows[0].size(0))


def info_nce_loss(a: Tensor, b: Tensor, temperature: float = 0.2, index_a: Tensor | None = None,
                  index_b: Tensor | None = None) -> Tensor:
    r"""InfoNCE between paired rows, from the `"Representation Learning with Contrastive Predictive Coding"
    <https://arxiv.org/abs/1807.03748>`_ paper: rows are L2-normalized, the logits are
    :math:`\mathbf{a}_k^\top \mathbf{b}_l / \tau`, and the cross entropy with the diagonal as target is averaged.

    With :obj:`index_a` and :obj:`index_b`, pair :math:`k` is ``(a[index_a[k]], b[index_b[k]])``. A row that occurs in
    many pairs then stands in :obj:`a` or :obj:`b` once and counts with its multiplicity, which gives the same loss as
    the repeated rows at a fraction of the work.

    Args:
        a (torch.Tensor): Left rows, ``[N, d]``.
        b (torch.Tensor): Right rows, ``[M, d]``; :math:`M = N` without indices.
        temperature (float): The temperature :math:`\tau`. (default: :obj:`0.2`)
        index_a (torch.Tensor, optional): Row of :obj:`a` of each pair, int64 ``[B]``. (default: all rows in order)
        index_b (torch.Tensor, optional): Row of :obj:`b` of each pair, int64 ``[B]``. (default: :obj:`index_a`)

    Returns:
        torch.Tensor: The loss, a scalar; 0 where there is no pair.
    """
    if index_a is None:
        if a.size(0) != b.size(0):
            raise ValueError(f'without indices there must be as many rows on both sides (got {a.size(0)} '
                             f'and {b.size(0)})')
        index_a = torch.arange(a.size(0), device=a.device)
    if index_a.numel() == 0:
        return (a.sum() + b.sum()) * 0.0
    return _InfoNCE.apply(a, b, temperature, index_a, index_b)


class _InfoNCE(torch.autograd.Function):
    """InfoNCE in blocks of rows, whose gradient is formed while a block of logits is at hand.

    So no ``[N, M]`` matrix is ever made, and what is made stays in a processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, temperature: float, index_a: Tensor, index_b: Tensor | None) -> Tensor:
        index_b = index_a if index_b is None else index_b  # Here: a compiler takes no tensor twice.
        num_a, num_b = a.size(0), b.size(0)
        (a, length_a), (b, length_b) = _unit_rows(_padded(a)), _unit_rows(_padded(b))
        count_a, count_b = _count(index_a, a), _count(index_b, b)
        pair_a, pair_b = a.index_select(0, index_a), b.index_select(0, index_b)
        scale = 1.0 / (index_a.numel() * temperature)
        needs_grad = any(ctx.needs_input_grad[:2])
        # The right one transposed, as its products come.
        grad_a, grad_b = torch.empty_like(a), torch.zeros_like(b.t())
        # A right row of n pairs counts n times, exp(x + log n); one of no pair, log 0, not even in the maximum.
        log_count = count_b.log()
        log_total = torch.empty_like(count_a)
        for start in range(0, a.size(0), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            weight = times_transposed(a[rows] / temperature, b, log_count)
            top = weight.amax(dim=1, keepdim=True)
            total = weight.sub_(top).exp_().sum(dim=1)
            log_total[rows] = total.log() + top.squeeze(1)
            if needs_grad:
                factor = (count_a[rows] / total * scale).unsqueeze(1)
                torch.mul(times_transposed(weight, b.t()), factor, out=grad_a[rows])
                grad_b += times_transposed((a[rows] * factor).t(), weight.t())
        if needs_grad:
            grad_a.index_add_(0, index_a, pair_b, alpha=-scale)
            grad_b = grad_b.t().index_add(0, index_b, pair_a, alpha=-scale)
            ctx.save_for_backward(_through_unit_rows(grad_a, a, length_a)[:num_a],
                                  _through_unit_rows(grad_b, b, length_b)[:num_b])
        return (log_total * count_a).sum() / index_a.numel() - (pair_a * pair_b).sum() * scale

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_a, grad_b = ctx.saved_tensors
        return grad_a * grad_outputs[0], grad_b * grad_outputs[0], None, None, None


def sampled_softmax_loss(users: Tensor, items: Tensor, user: Tensor, pos_item: Tensor, negatives: Tensor,
                         temperature: float | Tensor = 0.2, weight: Tensor | None = None) -> Tensor:
    r"""Sampled softmax over cosines, from the `"On the Effectiveness of Sampled Softmax Loss for Item Recommendation"
    <https://arxiv.org/abs/2201.02327>`_ paper: each user's item is told from all negatives of the batch at once,

    .. math::
        -\frac{1}{\sum_k w_k} \sum_k w_k \log \frac{\exp(\cos(\mathbf{u}_k, \mathbf{i}_k) / \tau)}
        {\exp(\cos(\mathbf{u}_k, \mathbf{i}_k) / \tau) + \sum_{j \in N} \exp(\cos(\mathbf{u}_k, \mathbf{i}_j) / \tau)}

    The negatives are shared by all users, so a few of them are some other user's items. Users are distinct rows, and
    a user who stands in many pairs is compared with the negatives once.

    Args:
        users (torch.Tensor): Distinct users, ``[N, d]``.
        items (torch.Tensor): Distinct items, ``[M, d]``.
        user (torch.Tensor): Row of each pair's user, int64 ``[B]``.
        pos_item (torch.Tensor): Row of each pair's item, int64 ``[B]``.
        negatives (torch.Tensor): Rows of the negatives, distinct, int64 ``[K]``.
        temperature (float or torch.Tensor): The temperature :math:`\tau`, one for all or one of each user ``[N]``.
            (default: :obj:`0.2`)
        weight (torch.Tensor, optional): Weight of each pair in the mean, positive, ``[B]``. (default: equal)

    Returns:
        torch.Tensor: The loss, a scalar; 0 where there is no pair, or nothing to tell it from.
    """
    if user.numel() == 0 or negatives.numel() == 0:
        return (users.sum() + items.sum()) * 0.0
    if not isinstance(temperature, Tensor):
        temperature = users.new_full((users.size(0), ), temperature)
    share = users.new_full((user.numel(), ), 1.0 / user.numel()) if weight is None else weight / weight.sum()
    return _SampledSoftmax.apply(users, items, user, pos_item, negatives, temperature.to(users.dtype),
                                 share.to(users.dtype))


class _SampledSoftmax(torch.autograd.Function):
    """Sampled softmax in blocks of users, with the gradient formed on the way, as in :class:`_InfoNCE`."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, user: Tensor, pos_item: Tensor, negatives: Tensor,
                temperature: Tensor, share: Tensor) -> Tensor:
        num_users, order = users.size(0), user.argsort(stable=True)
        user, pos_item, share = user[order], pos_item[order], share[order]
        sharpness = temperature.reciprocal()
        (users, user_length), (items, item_length) = _unit_rows(users), _unit_rows(items)
        of_pair, positive = users.index_select(0, user), items.index_select(0, pos_item)
        score = torch.einsum('bd,bd->b', of_pair, positive) * sharpness[user]
        others = _padded(items.index_select(0, negatives))
        # The rows that only fill up take no part.
        counts = F.pad(others.new_zeros(negatives.numel()), (0, others.size(0) - negatives.numel()), value=-math.inf)
        padded = _padded(users)
        scaled = _padded(users * sharpness.unsqueeze(1))
        grad_users, grad_others = torch.zeros_like(padded), torch.zeros_like(others.t())
        log_odds, slope = torch.empty_like(score), torch.empty_like(score)
        for start, rows, pairs in _blocks(user, padded.size(0), others.size(0)):
            weight = times_transposed(scaled[rows], others, counts)
            top = weight.amax(dim=1, keepdim=True)
            total = weight.sub_(top).exp_().sum(dim=1)
            log_odds[pairs] = (total.log() + top.squeeze(1))[user[pairs] - start] - score[pairs]
            slope[pairs] = log_odds[pairs].sigmoid() * share[pairs] * sharpness[user[pairs]]
            factor = total.new_zeros(total.size(0)).index_add_(0, user[pairs] - start, slope[pairs]).div_(total)
            torch.mul(times_transposed(weight, others.t()), factor.unsqueeze(1), out=grad_users[rows])
            grad_others += times_transposed((padded[rows] * factor.unsqueeze(1)).t(), weight.t())
        slope = slope.unsqueeze(1)
        grad_users = grad_users[:num_users].index_add_(0, user, positive * -slope)
        grad_items = torch.zeros_like(items).index_add_(0, negatives, grad_others.t()[:negatives.numel()])
        grad_items.index_add_(0, pos_item, of_pair * -slope)
        ctx.save_for_backward(_through_unit_rows(grad_users, users, user_length),
                              _through_unit_rows(grad_items, items, item_length))
        return torch.dot(F.softplus(log_odds), share)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_users, grad_items = ctx.saved_tensors
        return grad_users * grad_outputs[0], grad_items * grad_outputs[0], None, None, None, None, None


def _blocks(user: Tensor, num_users: int, num_negatives: int) -> Iterator[tuple[int, slice, slice]]:
    """The first user, the users, and the pairs (sorted by user) of each block. A GPU has to wait to learn where the
    pairs of a block end, so its blocks are large: batches of some thousands are one."""
    size = max(_BLOCK_ROWS, _CUDA_BLOCK_LOGITS // num_negatives) if user.is_cuda else _BLOCK_ROWS
    starts = list(range(0, num_users, size))
    ends = [user.numel()]
    if len(starts) > 1:
        ends = torch.searchsorted(user, torch.tensor([*starts[1:], num_users], device=user.device)).tolist()
    for start, (first, last) in zip(starts, pairwise([0, *ends]), strict=True):
        yield start, slice(start, start + size), slice(first, last)


def _padded(x: Tensor) -> Tensor:
    """The rows and some of zeros: numbers of distinct users and items differ from batch to batch, and each new size
    would cost times_transposed more than it saves."""
    return F.pad(x, (0, 0, 0, -x.size(0) % _PADDED_ROWS))


def _count(index: Tensor, rows: Tensor) -> Tensor:
    """Returns how often each of the rows occurs, ``[N]``; on a GPU ``bincount`` would wait for the index."""
    counts = index.new_zeros(rows.size(0)).index_add_(0, index, torch.ones_like(index))
    return counts.to(rows.dtype)


def _unit_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """The rows at length 1, or zero, and their lengths ``[N, 1]``, as :func:`torch.nn.functional.normalize` has it."""
    length = x.norm(dim=1, keepdim=True).clamp_(min=_SHORTEST)
    return x / length, length


def _through_unit_rows(grad: Tensor, unit: Tensor, length: Tensor) -> Tensor:
    """Turns the gradient of unit rows, in place, into that of the rows they were made of."""
    along = torch.einsum('nd,nd->n', grad, unit).unsqueeze(1).masked_fill_(length == _SHORTEST, 0.0)
    return grad.addcmul_(unit, along, value=-1.0).div_(length)
