"""Tests of dgmrec_pyg.nn.models.dgmrec_explain: what scores of DGMRec are made of."""

from __future__ import annotations

from itertools import combinations
from math import factorial

import pytest
import torch
from conftest import make_data
from model_training import train
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import DGMRecConfig
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.nn import DGMRec
from dgmrec_pyg.nn.models.dgmrec_explain import ScoreParts, fused_parts
from dgmrec_pyg.nn.models.dgmrec_terms import Side
from dgmrec_pyg.schema import INTERACTS, ITEM
from dgmrec_pyg.transforms import HoldOutNewItems

USERS = torch.tensor([3, 0, 17])
MODALITIES = ['audio', 'image', 'text']
NAMES = ['collaborative', *(f'{kind}_{m}' for kind in ('general', 'specific') for m in MODALITIES)]


def trained(data: HeteroData, config: DGMRecConfig | None = None) -> DGMRec:
    model = DGMRec.from_data(data, config or DGMRecConfig(hidden_channels=8), torch.Generator().manual_seed(0))
    train(model, data, epochs=5)
    return model.eval()


@pytest.fixture(scope='module')
def model() -> DGMRec:
    return trained(make_data())


@pytest.fixture(params=['default', 'reference', 'initial graph', 'new items', 'two modalities'])
def any_model(request: pytest.FixtureRequest) -> DGMRec:
    config = {'reference': DGMRecConfig.reference('baby'), 'initial graph': DGMRecConfig(inference_graph='initial')}
    data = make_data(modalities={'image': 4, 'text': 3} if request.param == 'two modalities' else None)
    return trained(HoldOutNewItems()(data) if request.param == 'new items' else data, config.get(request.param))


def test_parts_add_up_to_the_scores(any_model: DGMRec) -> None:
    items, scores = any_model.recommend(USERS, k=10)
    parts = any_model.score_parts(USERS, items)
    assert len(parts) == 1 + 2 * len(any_model.modalities)
    torch.testing.assert_close(sum(parts.values()), scores, rtol=1e-5, atol=1e-5)


def test_parts_add_up_on_all_items(model: DGMRec) -> None:
    everything = torch.arange(model.num_items).expand(len(USERS), -1)
    parts = model.score_parts(USERS, everything)
    assert list(parts) == NAMES
    torch.testing.assert_close(sum(parts.values()), model.scorer()(USERS), rtol=1e-5, atol=1e-5)


def random_side(count: int, seed: int, modality_weight: float = 1.0) -> Side:
    """General and specific parts of three modalities."""
    generator = torch.Generator().manual_seed(seed)
    return Side(torch.randn(count, 8, generator=generator),
                tuple(torch.randn(count, 16, generator=generator) for _ in MODALITIES), modality_weight)


@pytest.mark.parametrize('weight', [1.0, 0.1, 0.0])
def test_summands_of_the_embeddings_add_up(weight: float) -> None:
    side = random_side(5, seed=0, modality_weight=weight)
    parts = fused_parts(side, MODALITIES)
    assert list(parts) == NAMES
    torch.testing.assert_close(sum(parts.values()), side.fused())
    torch.testing.assert_close(parts['general_image'], weight * side.filtered[1][:, :8] / 12)
    torch.testing.assert_close(parts['specific_text'], weight * side.filtered[2][:, 8:] / 4)


@pytest.mark.parametrize('weight', [1.0, 0.1])
def test_each_part_is_its_shapley_value(weight: float) -> None:
    """Written out: what a part adds to those before it, over all orders."""
    users, items = random_side(4, seed=0, modality_weight=weight), random_side(6, seed=1, modality_weight=weight)
    of_user, of_item = fused_parts(users, MODALITIES), fused_parts(items, MODALITIES)
    user, item = 3, 2

    def worth(names: tuple[str, ...]) -> Tensor:
        nothing = torch.zeros(8)
        return sum((of_user[n][user] for n in names), nothing) @ sum((of_item[n][item] for n in names), nothing)

    found = ScoreParts(users, items, MODALITIES)(torch.tensor(user), torch.tensor([item]))
    for name in NAMES:
        others = [other for other in NAMES if other != name]
        expected = sum(factorial(size) * factorial(len(others) - size) / factorial(len(NAMES))
                       * (worth((*some, name)) - worth(some))
                       for size in range(len(NAMES)) for some in combinations(others, size))
        torch.testing.assert_close(found[name][0], expected, rtol=1e-4, atol=1e-5)


def test_a_modality_without_weight_has_no_part() -> None:
    """Where a modality's features say nothing, neither do its parts, and the others stay."""
    silent = trained(make_data())
    before = silent.score_parts(USERS, silent.recommend(USERS, k=5)[0])
    torch.nn.init.zeros_(silent.preference.lin['image'].weight)
    after = silent.score_parts(USERS, silent.recommend(USERS, k=5)[0])
    for kind in ('general', 'specific'):
        assert before[f'{kind}_image'].abs().min() > 0
        assert after[f'{kind}_image'].abs().max() == 0
        assert after[f'{kind}_text'].abs().min() > 0


def test_one_user_or_some(model: DGMRec) -> None:
    items, _ = model.recommend(USERS, k=4)
    some, one = model.score_parts(USERS, items), model.score_parts(3, items[0].tolist())
    for name in NAMES:
        assert some[name].shape == (3, 4)
        torch.testing.assert_close(some[name][0], one[name])
        assert not one[name].requires_grad


def test_an_explainer_is_used_many_times(model: DGMRec) -> None:
    items, _ = model.recommend(USERS, k=4)
    explain = model.explainer()
    for name, part in model.score_parts(USERS, items).items():
        assert explain(USERS, items)[name].equal(part)


@pytest.mark.parametrize(('users', 'items', 'message'), [
    ([0, 99], [[1], [2]], 'unknown user 99: user ids are 0 to 29'),
    ([0, 1], [[1], [-1]], 'unknown item -1: item ids are 0 to 39'),
    ([0, 1], [1, 2, 3], r'each user needs a row of items \(got users \[2\] and items \[3\]\)'),
    (0, 1, r'each user needs a row of items \(got users \[\] and items \[\]\)'),
])
def test_what_does_not_fit_is_an_error(users: object, items: object, message: str, model: DGMRec) -> None:
    with pytest.raises(UserError, match=message):
        model.score_parts(users, items)


def test_neighbors_reach_the_parts_of_a_user() -> None:
    """One more item in a user's history changes all parts of that user's scores."""
    data = make_data()
    user, item = data[INTERACTS].edge_index
    new = int(next(iter(set(range(data[ITEM].num_nodes)) - set(item[user == 3].tolist()))))
    more = data.clone()
    more[INTERACTS].edge_index = torch.cat([data[INTERACTS].edge_index, torch.tensor([[3], [new]])], dim=1)
    parts = []
    for one in (data, more):
        model = DGMRec.from_data(one, DGMRecConfig(hidden_channels=8), torch.Generator().manual_seed(0)).eval()
        parts.append(model.score_parts(3, [1, 2]))
    assert all(not parts[0][name].allclose(parts[1][name], rtol=1e-6, atol=0) for name in NAMES)
