from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import Compose

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.schema import build_data, feature_key, item_features, missing_mask, missing_matrix, modality_names
from dgmrec_pyg.transforms import ImputeMissing, ScaleFeatures
from dgmrec_pyg.transforms.scale_features import METHODS


def scale(x: Tensor, missing: Tensor, method: str) -> Tensor:
    data = build_data(num_users=1, num_items=len(x), edge_index=torch.zeros(2, 0, dtype=torch.long),
                      features={'audio': x}, missing={'audio': missing})
    return item_features(ScaleFeatures(method)(data), 'audio')


def case() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 128 + 5 * torch.randn(50, 4, generator=generator) * torch.tensor([1., 2., 4., 8.])
    return x, torch.rand(50, generator=generator) < 0.3


def test_standard() -> None:
    x, missing = case()
    observed = scale(x, missing, 'standard')[~missing]
    torch.testing.assert_close(observed.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(observed.var(dim=0, correction=0), torch.ones(4))


def test_global_keeps_the_geometry() -> None:
    x, missing = case()
    out = scale(x, missing, 'global')
    torch.testing.assert_close(out[~missing].mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out[~missing].square().mean(), torch.tensor(1.))
    ratio = torch.pdist(out) / torch.pdist(x)
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio), rtol=1e-4, atol=0)


def test_unit() -> None:
    x, missing = case()
    out = scale(x, missing, 'unit')
    torch.testing.assert_close(out.norm(dim=1), torch.ones(50))
    torch.testing.assert_close(torch.cosine_similarity(out, x), torch.ones(50))


def test_none() -> None:
    x, missing = case()
    assert scale(x, missing, 'none').equal(x)


@pytest.mark.parametrize('method', ['standard', 'global'])
def test_masked_rows_are_transformed_alike(method: str) -> None:
    x, missing = case()
    twin = x.clone()
    twin[missing] = x[~missing][0]
    out = scale(twin, missing, method)
    assert out[missing].equal(out[~missing][:1].expand(int(missing.sum()), -1))


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('value', [0., 0.1, 128.3, -1e6])
def test_constant_features_stay_finite(method: str, value: float) -> None:
    out = scale(torch.full((7000, 3), value), torch.zeros(7000, dtype=torch.bool), method)
    assert out.isfinite().all()
    if method in ('standard', 'global'):
        assert not out.any()


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('num_observed', [0, 1])
def test_few_observed_rows_stay_finite(method: str, num_observed: int) -> None:
    x, _ = case()
    assert scale(x, torch.arange(50) >= num_observed, method).isfinite().all()


@pytest.mark.parametrize('method', METHODS)
def test_masked_rows_are_never_read(small_data: HeteroData, method: str) -> None:
    poisoned = copy.copy(small_data)
    for name in modality_names(small_data):
        missing = missing_mask(small_data, name)[:, None]
        poisoned['item'][feature_key(name)] = torch.where(missing, torch.nan, item_features(small_data, name))
    out, expected = ScaleFeatures(method)(poisoned), ScaleFeatures(method)(small_data)
    for name in modality_names(small_data):
        observed = ~missing_mask(small_data, name)
        assert item_features(out, name)[observed].equal(item_features(expected, name)[observed])


@pytest.mark.parametrize('method', METHODS)
def test_inputs_are_not_written_to(small_data: HeteroData, method: str) -> None:
    before = copy.deepcopy(small_data)
    out = ScaleFeatures(method)(small_data)
    assert missing_matrix(out).equal(missing_matrix(before))
    for name in modality_names(small_data):
        assert item_features(small_data, name).equal(item_features(before, name))
        assert item_features(out, name).size() == item_features(before, name).size()


def test_compose(small_data: HeteroData) -> None:
    out = Compose([ScaleFeatures('standard'), ImputeMissing()])(small_data)
    for name in modality_names(out):  # the mean of standardized features is zero
        assert item_features(out, name)[missing_mask(out, name)].abs().max() < 1e-5


def test_unknown_method() -> None:
    with pytest.raises(UserError, match="did you mean 'standard'"):
        ScaleFeatures('standart')


def test_repr() -> None:
    assert repr(ScaleFeatures()) == "ScaleFeatures(method='standard')"
