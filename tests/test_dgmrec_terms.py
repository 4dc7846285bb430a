"""Tests of the terms of DGMRec's loss."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from conftest import make_data
from dgmrec_case import ALL_TERMS, ENCODINGS, WEIGHTS, make
from model_training import draw_batch
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import DGMRecConfig
from dgmrec_pyg.nn import info_nce_loss
from dgmrec_pyg.nn.models import dgmrec_terms
from dgmrec_pyg.nn.models.dgmrec_terms import norm_of_rows
from dgmrec_pyg.schema import ITEM, missing_mask, missing_matrix


@pytest.mark.parametrize('term', WEIGHTS)
def test_a_term_of_weight_zero_is_not_reported(term: str, small_data: HeteroData) -> None:
    batch = draw_batch(small_data)
    everything = {'softmax', 'embedding_reg', *WEIGHTS}
    assert make(small_data, ALL_TERMS).loss_terms(*batch).keys() == everything
    terms = make(small_data, ALL_TERMS.replace(**{WEIGHTS[term]: 0.0})).loss_terms(*batch)
    assert terms.keys() == everything - {term}
    only = make(small_data, ENCODINGS.replace(**{w: float(t == term) for t, w in WEIGHTS.items()})).loss_terms(*batch)
    assert only.keys() == {'softmax', 'embedding_reg', term}


@pytest.mark.parametrize('term', WEIGHTS)
def test_terms_are_finite_where_every_item_lacks_something(term: str) -> None:
    """Then there is no complete item to compare modalities on."""
    data = make_data(modalities={'image': 4, 'text': 3})
    data[ITEM].missing_text = ~data[ITEM].missing_image
    model = make(data, ALL_TERMS)
    value = model.loss_terms(*draw_batch(data))[term]
    assert value.isfinite()
    value.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_norm_of_rows_is_that_of_the_table_of_them() -> None:
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[2] = 0.0
    x.requires_grad_()
    index = torch.tensor([0, 5, 5, 2, 0, 0])
    results = [(y, torch.autograd.grad(y, x)[0]) for y in (norm_of_rows(x, index), x[index].norm())]
    torch.testing.assert_close(*results)
    assert torch.autograd.grad(norm_of_rows(x, index[3:4]), x)[0].isfinite().all()  # Nothing but zeros.


def test_order_of_the_batch_does_not_matter(small_data: HeteroData) -> None:
    config = ALL_TERMS.replace(noise_scale=0.0)
    batch, permutation = draw_batch(small_data), torch.randperm(40, generator=torch.Generator().manual_seed(2))
    order = torch.randperm(batch[0].numel(), generator=torch.Generator().manual_seed(3))
    model = make(small_data, config)
    expected = model.loss_terms(*batch, club_permutation=permutation)
    for name, value in model.loss_terms(*(ids[order] for ids in batch), club_permutation=permutation).items():
        torch.testing.assert_close(value, expected[name])


def test_estimators_get_no_gradient_of_the_bound(small_data: HeteroData) -> None:
    model = make(small_data, ALL_TERMS)
    model.loss_terms(*draw_batch(small_data))['club'].backward()
    assert all(parameter.grad is None for parameter in model.club.parameters())
    assert any(parameter.grad is not None for parameter in model.encoder.parameters())


def test_tables_of_all_items_end_with_the_terms_that_read_them(small_data: HeteroData, monkeypatch: pytest.MonkeyPatch
                                                               ) -> None:
    seen = []
    monkeypatch.setattr(dgmrec_terms, 'generation', lambda parts, *_: seen.append(parts.all_items) or torch.zeros(()))
    make(small_data, ALL_TERMS).loss_terms(*draw_batch(small_data))
    assert seen == [None]


def test_what_generates_nothing_is_not_trained(small_data: HeteroData) -> None:
    config = ALL_TERMS.replace(generate_from='features')
    trained = make(small_data, ALL_TERMS).loss_terms(*draw_batch(small_data)).keys()
    assert trained - make(small_data, config).loss_terms(*draw_batch(small_data)).keys() == {
        'reconstruction', 'generation', 'feature_generation'}


def test_reconstruction_may_be_limited_to_the_items_of_the_batch(small_data: HeteroData) -> None:
    config = ENCODINGS.replace(noise_scale=0.0, reconstruction_items='batch')
    model = make(small_data, config)
    user, positive, negative = (part[:6] for part in draw_batch(small_data))
    found = model.loss_terms(user, positive, negative)['reconstruction']
    items, parts = torch.cat([positive, negative]).unique(), model.parts()
    expected = sum(
        F.mse_loss(model.generator_net.decode(m, general[items], specific[items]), model.feature_tables[m][items])
        for m, general, specific in zip(model.modalities, parts.items.general, parts.items.specific, strict=True))
    torch.testing.assert_close(found, expected)
    assert not torch.isclose(found, make(small_data, config.replace(reconstruction_items='all')).loss_terms(
        user, positive, negative)['reconstruction'])


def test_reconstruction_may_be_limited_to_what_is_observed(small_data: HeteroData) -> None:
    model = make(small_data, ENCODINGS.replace(noise_scale=0.0, reconstruction_items='observed'))
    user, positive, negative = (part[:6] for part in draw_batch(small_data))
    found = model.loss_terms(user, positive, negative)['reconstruction']
    items, parts = torch.cat([positive, negative]).unique(), model.parts()
    expected = 0.0
    for m, general, specific in zip(model.modalities, parts.items.general, parts.items.specific, strict=True):
        rows = items[~missing_mask(small_data, m)[items]]
        expected += F.mse_loss(model.generator_net.decode(m, general[rows], specific[rows]),
                               model.feature_tables[m][rows])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('count', [1, 4, 30])
def test_alignments_contrast_the_first_pairs_of_a_batch(small_data: HeteroData, count: int) -> None:
    weights = {'inter_modal_weight': 1.0, 'intra_modal_weight': 1.0, 'behavior_alignment_weight': 1.0,
               'ranking_loss': 'bpr', 'reconstruction_weight': 0.0, 'generation_weight': 0.0}
    user, positive, negative = (part[:30] for part in draw_batch(small_data))
    some, every = (make(small_data, DGMRecConfig(noise_scale=0.0, contrastive_pairs=number, **weights))
                   for number in (count, 0))
    found = some.loss_terms(user, positive, negative)
    of_first = every.loss_terms(user[:count], positive[:count], negative[:count])
    of_all = every.loss_terms(user, positive, negative)
    for name in ('intra_modal', 'behavior_alignment'):
        torch.testing.assert_close(found[name], of_first[name])
        assert count == 30 or not torch.isclose(found[name], of_all[name])
    for name in ('bpr', 'embedding_reg', 'feature_reg'):
        torch.testing.assert_close(found[name], of_all[name])
    torch.testing.assert_close(found['inter_modal'], of_first['inter_modal'])


@pytest.mark.parametrize('pairs', [0, 2048])
def test_alignment_of_modalities_takes_all_complete_items_of_a_batch(pairs: int) -> None:
    """Positives and negatives together may be more than the batch has members."""
    data = make_data(missing_rate=0.02)
    model = make(data, DGMRecConfig(noise_scale=0.0, inter_modal_weight=1.0, contrastive_pairs=pairs))
    user, positive, negative = (part[:4] for part in draw_batch(data))
    found = model.loss_terms(user, positive, negative)['inter_modal']
    items, parts = torch.cat([positive, negative]).unique(), model.parts()
    complete = items[~missing_matrix(data)[items].any(dim=1)]
    assert complete.numel() > 4
    names, rows = model.modalities, torch.arange(user.numel())
    expected = sum(info_nce_loss(model.general(a)[complete], model.general(b)[complete], 0.4)
                   + info_nce_loss(parts.users.general[i][user], parts.users.general[j][user], 0.4, rows)
                   for (i, a), (j, b) in combinations(enumerate(names), 2))
    torch.testing.assert_close(found, expected)


def test_feature_generation_is_the_error_of_what_would_be_generated(small_data: HeteroData) -> None:
    model = make(small_data, ENCODINGS.replace(noise_scale=0.0, feature_generation_weight=1.0))
    user, positive, negative = draw_batch(small_data)
    found = model.loss_terms(user, positive, negative)['feature_generation']
    general, _ = model.encoder(model.feature_tables)
    made = model.generator_net.eval()(general, model.item_preference())
    items, expected = torch.cat([positive, negative]).unique(), 0.0
    for m in model.modalities:
        rows = items[~missing_mask(small_data, m)[items]]
        expected += F.mse_loss(made[m][rows], model.feature_tables[m][rows])
    torch.testing.assert_close(found, expected)


def test_feature_generation_trains_generators_alone(small_data: HeteroData) -> None:
    model = make(small_data, ENCODINGS.replace(feature_generation_weight=1.0))
    model.loss_terms(*draw_batch(small_data))['feature_generation'].backward()
    trained = {name.partition('.')[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {'generator_net'}


def test_club_training_touches_nothing_but_the_estimators() -> None:
    model = make(make_data(missing_rate=0.0), ALL_TERMS)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.start_epoch(1)
    for name, parameter in model.named_parameters():
        assert parameter.equal(before[name]) != name.startswith('club.'), name
        assert parameter.grad is None, name


def test_club_is_not_in_the_main_optimizer(small_data: HeteroData) -> None:
    model = make(small_data, ALL_TERMS)
    club = {id(parameter) for parameter in model.club.parameters()}
    assert len(club) == 3 * 8
    assert club.isdisjoint(id(parameter) for parameter in model.trainable_parameters())
    assert len(list(make(small_data, ALL_TERMS.replace(club_weight=0.0)).club.parameters())) == 0


def test_club_permutation_can_be_fixed(small_data: HeteroData) -> None:
    model, batch = make(small_data, ALL_TERMS), draw_batch(small_data)
    terms = model.loss_terms(*batch, club_permutation=torch.arange(40))
    assert terms['club'].item() == 0.0
    assert model.loss_terms(*batch)['club'].item() != 0.0
