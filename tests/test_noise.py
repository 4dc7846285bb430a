"""Tests of dgmrec_pyg.nn.noise."""

from __future__ import annotations

import pytest
import torch

from dgmrec_pyg.nn.noise import dropout, gumbel_noise


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize('rate', [0.2, 0.5, 0.9])
def test_dropout_keeps_a_share_and_the_mean(rate: float) -> None:
    x = torch.rand(400, 100, generator=seeded())
    dropped = dropout(x, rate, seeded(1))
    kept = dropped != 0
    assert kept.double().mean().item() == pytest.approx(1 - rate, abs=0.01)
    torch.testing.assert_close(dropped[kept], (x / (1 - rate))[kept])
    assert dropped.mean().item() == pytest.approx(x.mean().item(), abs=0.02)


def test_dropout_of_nothing_and_of_everything() -> None:
    x = torch.rand(5, 4)
    assert dropout(x, 0.0) is x
    assert not dropout(x, 1.0).any()


def test_generators_decide() -> None:
    x = torch.rand(20, 20)
    for draw in (lambda g: dropout(x, 0.5, g), lambda g: gumbel_noise(x, g)):
        assert draw(seeded()).equal(draw(seeded()))
        assert not draw(seeded()).equal(draw(seeded(1)))


def test_gumbel_noise_makes_softmax_a_choice_by_probability() -> None:
    """The largest of logits plus noise falls on each place with the probability that the softmax gives it."""
    logits = torch.tensor([0.0, 1.0, -1.0]).expand(100_000, 3)
    chosen = (logits + gumbel_noise(logits, seeded())).argmax(dim=1)
    share = torch.bincount(chosen, minlength=3) / 100_000
    torch.testing.assert_close(share, logits[0].softmax(dim=0), atol=0.01, rtol=0.0)


def test_gumbel_noise_carries_no_gradient_and_is_finite() -> None:
    x = torch.zeros(1000, 100, requires_grad=True)
    noise = gumbel_noise(x, seeded())
    assert not noise.requires_grad
    assert noise.isfinite().all()
