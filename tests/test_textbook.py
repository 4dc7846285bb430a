"""The package against the textbook version in benchmarks: same parameters in, same numbers out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from conftest import make_data
from model_training import draw_batch, with_few_and_many
from textbook import TextbookDGMRec
from textbook_training import TextbookTrainer, evaluate
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import DGMRecConfig, TrainingConfig
from dgmrec_pyg.datasets import SyntheticMultimodal
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.evaluation import SplitEvaluator
from dgmrec_pyg.nn import DGMRec
from dgmrec_pyg.schema import INTERACTS, ITEM, missing_key, missing_matrix, modality_names, training_edges
from dgmrec_pyg.transforms import HoldOutNewItems, MissingModality

SIZES = {'audio': 6, 'image': 12, 'text': 8, 'video': 5}
ALL_TERMS = {'generate_from': 'encodings',
             'hidden_channels': 16, 'noise_scale': 0.0, 'knn_k': 5, 'club_weight': 0.03, 'inter_modal_weight': 0.02,
             'intra_modal_weight': 0.05, 'behavior_alignment_weight': 0.04}
SETTINGS = [
    {},
    {'generate_for': 'single', 'ranking_loss': 'bpr'},
    {'ranking_temperature': 0.5},
    {'knn_missing': 'drop_after', 'imputation': 'zero', 'reconstruction_items': 'all', 'train_features': True},
    {'inference_graph': 'initial', 'graph_refresh_rate': 1.0, 'reconstruction_items': 'batch'},
    {'graph_refresh_rate': 0.0, 'num_modality_layers': 1, 'num_layers': 2},
]


def keep_one_that_lacks_several(data: HeteroData) -> None:
    """Gives all other items that lack several modalities what they lack.

    Generation for ``'single'`` leaves imputed rows in such items, all alike. Of more than k of them rounding would
    choose an item's neighbors.
    """
    several = (missing_matrix(data).sum(dim=1) > 1).nonzero().view(-1)
    assert several.numel() > 1
    for m in modality_names(data):
        data[ITEM][missing_key(m)][several[1:]] = False


class Pair:
    """Both versions with the same parameters, float64 so that only the mathematics can differ."""

    def __init__(self, num_modalities: int, **settings: object) -> None:
        self.data = with_few_and_many(make_data(modalities=dict(list(SIZES.items())[:num_modalities])))
        self.config = DGMRecConfig().replace(**ALL_TERMS, **settings)
        if self.config.generate_for == 'single':
            keep_one_that_lacks_several(self.data)
        self.model = DGMRec.from_data(self.data, self.config, torch.Generator().manual_seed(3)).double()
        self.simple = TextbookDGMRec(self.data, self.config).double().copy_from(self.model)
        self.simple.build_graphs()
        self.model.item_graphs.build({m: self.model.features(m) for m in self.model.modalities})
        self.batch = tuple(ids[-60:] for ids in draw_batch(self.data))  # Not all users, nor the first.
        self.permutation = torch.randperm(self.model.num_items, generator=torch.Generator().manual_seed(4))

    def generate(self) -> None:
        for version in (self.model, self.simple):
            version.generate_missing()

    def refresh(self) -> None:
        for version in (self.model, self.simple):
            version.refresh_graphs()


@pytest.fixture(params=[(number, settings) for number in (2, 3, 4) for settings in SETTINGS],
                ids=lambda param: f'{param[0]}-{"-".join(map(str, param[1].values())) or "default"}')
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    torch.set_default_dtype(torch.float64)  # the weights of edges are made in it
    try:
        yield Pair(request.param[0], **request.param[1])
    finally:
        torch.set_default_dtype(torch.float32)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def dense(model: DGMRec, modality: str) -> Tensor:
    """An item graph as the textbook has it: row i holds the neighbors of item i."""
    edge_index, edge_weight = model.item_graph(modality)
    size = (model.num_items, model.num_items)
    return torch.sparse_coo_tensor(edge_index.flip(0), edge_weight, size, check_invariants=True).to_dense()


def test_terms_and_gradients(pair: Pair) -> None:
    terms = pair.model.loss_terms(*pair.batch, club_permutation=pair.permutation)
    expected = pair.simple.loss_terms(*pair.batch, pair.permutation)
    assert terms.keys() == expected.keys() == pair.model.term_weights().keys()
    for name, term in terms.items():
        close(term, expected[name])
        assert term.item() != 0.0, name
    pair.model.loss(*pair.batch, club_permutation=pair.permutation).backward()
    pair.simple.loss(*pair.batch, pair.permutation).backward()
    gradients = {name: parameter.grad for name, parameter in pair.simple.named_parameters()}
    for name, parameter in pair.model.named_parameters():
        if name.startswith('club.'):  # The textbook throws these gradients away: estimators have their own loss.
            assert parameter.grad is None
        else:
            close(parameter.grad, gradients[name])


def test_a_whole_epoch_gives_the_same_embeddings_features_and_graphs(pair: Pair) -> None:
    before = {m: dense(pair.model, m) for m in pair.model.modalities}
    for m in pair.model.modalities:
        close(before[m], pair.simple.graph[m].to_dense())
    pair.generate()
    pair.refresh()
    for m in pair.model.modalities:
        close(pair.model.features(m), pair.simple.feature_tables[m].detach())
        close(dense(pair.model, m), pair.simple.graph[m].to_dense())
    for found, expected in zip(pair.model.embed(), pair.simple.embed(), strict=True):
        close(found, expected)
    # The second generation reads the refreshed graphs.
    pair.generate()
    for m in pair.model.modalities:
        close(pair.model.features(m), pair.simple.feature_tables[m].detach())
    if pair.config.graph_refresh_rate > 0:
        assert any(not before[m].equal(dense(pair.model, m)) for m in before)


@pytest.mark.parametrize('switch', [{'train_features': True}, {'club_weight': 0.0, 'inter_modal_weight': 0.0}],
                         ids=['trained features', 'without weights'])
def test_switches_leave_out_the_same(switch: dict[str, object]) -> None:
    data = make_data()
    config = DGMRecConfig().replace(**ALL_TERMS | switch)
    model = DGMRec.from_data(data, config, torch.Generator().manual_seed(3))
    simple = TextbookDGMRec(data, config).copy_from(model)
    batch, permutation = draw_batch(data), torch.randperm(model.num_items, generator=torch.Generator().manual_seed(4))
    assert model.loss_terms(*batch).keys() == simple.loss_terms(*batch).keys()
    model.loss(*batch, club_permutation=permutation).backward()
    simple.loss(*batch, permutation).backward()
    parameters = dict(simple.named_parameters())
    assert parameters.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        is_left_out = parameters[name].grad is None or name.startswith('club.')  # As in test_terms_and_gradients.
        assert (parameter.grad is None) == is_left_out, name


def test_metrics() -> None:
    data = SyntheticMultimodal(num_users=120, num_items=90, interactions_per_user=15)[0]
    train, labels = training_edges(data), data[INTERACTS].val_edge_label_index
    train = train[:, train[0] > 5]  # users without training items do not count
    generator = torch.Generator().manual_seed(0)
    user, item = torch.randn(120, 8, generator=generator), torch.randn(90, 8, generator=generator)
    evaluator = SplitEvaluator(labels, train, 120, 90)
    found = evaluator.metrics(evaluator.rank(lambda users: user[users] @ item.t()))
    expected = evaluate(user, item, train, labels)
    assert found.keys() == expected.keys()
    assert all(0 < value < 1 for value in expected.values())
    assert found == pytest.approx(expected, rel=1e-5)


def test_training_draws_no_seen_item_and_lowers_the_loss() -> None:
    data = MissingModality(ratio=0.6)(make_data(missing_rate=0.0))
    model = TextbookDGMRec(data, DGMRecConfig(), torch.Generator().manual_seed(0))
    trainer = TextbookTrainer(model, training_edges(data), TrainingConfig(batch_size=50, learning_rate=0.01))
    user = training_edges(data)[0].tolist()
    assert all(trainer.negative(one) not in trainer.seen[one] for one in user)
    before = float(model.loss(*draw_batch(data)).detach())
    initial = {m: model.graph[m].to_dense() for m in model.modalities}
    for epoch in range(1, 6):
        trainer.train_epoch(epoch)
    assert float(model.loss(*draw_batch(data)).detach()) < before
    assert any(not model.graph[m].to_dense().equal(initial[m]) for m in initial)  # refreshed in the fifth epoch


def test_a_part_of_an_epoch_has_so_many_steps() -> None:
    data = make_data()
    model = TextbookDGMRec(data, DGMRecConfig(), torch.Generator().manual_seed(0))
    trainer = TextbookTrainer(model, training_edges(data), TrainingConfig(batch_size=50))
    assert len(trainer) == 4
    trainer.train_epoch(1, steps=3)
    assert trainer.optimizer.state[model.user_embedding.weight]['step'] == 3


def test_new_items_are_refused(small_data: object) -> None:
    with pytest.raises(UserError, match='new items'):
        TextbookDGMRec(HoldOutNewItems()(small_data), DGMRecConfig())
