"""Tests of dgmrec_pyg.config."""

from __future__ import annotations

import dataclasses
import json
import warnings

import pytest

from dgmrec_pyg.config import DGMRecConfig, TrainingConfig, load_preset, parse_settings
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.nn import MODELS

COLUMNS = ('batch_size', 'num_modality_layers', 'generation_weight', 'graph_refresh_rate', 'inter_modal_temperature',
           'intra_modal_temperature', 'behavior_alignment_temperature', 'reconstruction_weight', 'feature_reg_weight',
           'club_weight', 'inter_modal_weight', 'intra_modal_weight', 'behavior_alignment_weight')
RELEASED = {
    'baby': (2048, 2, 0.1, 0.4, 0.4, 0.2, 0.4, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01),
    'sports': (2048, 1, 1.0, 0.8, 0.4, 0.1, 0.2, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01),
    'clothing': (4096, 1, 1.0, 0.0, 0.2, 0.2, 0.2, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01),
    'elec': (4096, 1, 1.0, 0.8, 0.2, 0.1, 0.2, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01),
    'tiktok': (2048, 2, 1.0, 0.4, 0.4, 0.2, 0.4, 0.1, 0.1, 0.0, 0.0, 0.01, 0.01),
}
"""The released settings by set."""

SAME_FOR_ALL = {
    'hidden_channels': 64, 'num_layers': 3, 'knn_k': 10, 'graph_refresh_every': 5, 'noise_scale': 0.1,
    'train_features': True, 'generate_for': 'single', 'generate_from': 'encodings',
    'inference_graph': 'refreshed', 'knn_missing': 'drop_after',
    'knn_index': 'exact', 'max_steps': 0, 'contrastive_pairs': 0,
    'feature_generation_weight': 0.0, 'ranking_loss': 'bpr', 'ranking_temperature': 0.25,
    'ranking_temperature_spread': 0.0, 'user_balance': 0.0, 'modality_weight': 1.0,
    'feature_scale': 'given', 'feature_channels': 0, 'reconstruction_items': 'all',
    'imputation': 'mean', 'learning_rate': 1e-3, 'learning_rate_decay': 0.96, 'epochs': 500, 'eval_every': 1,
    'mask_validation': False,
}


def everything(name: str) -> dict[str, object]:
    preset = load_preset('reference', name)
    return DGMRecConfig.from_dict(preset['model']).to_dict() | TrainingConfig.from_dict(preset['training']).to_dict()


@pytest.mark.parametrize('name', RELEASED)
def test_reference_presets_are_the_released_settings(name: str) -> None:
    patience = 20 if name == 'tiktok' else 30
    expected = SAME_FOR_ALL | {'patience': patience} | dict(zip(COLUMNS, RELEASED[name], strict=True))
    assert everything(name) == expected
    assert DGMRecConfig.reference(name).to_dict().items() <= expected.items()


@pytest.mark.filterwarnings('ignore:there are no released settings')
@pytest.mark.parametrize('name', ['tiktok', 'lfm2k', 'synthetic', 'no such set', '../tiktok'])
def test_sets_without_a_release_get_the_settings_of_tiktok(name: str) -> None:
    assert everything(name) == everything('tiktok')
    assert DGMRecConfig.reference(name) == DGMRecConfig.reference('tiktok') == DGMRecConfig.reference()


PEERS_ON_TIKTOK = {
    'bm3': {'num_layers': 1, 'dropout': 0.3, 'embedding_reg_weight': 0.01},
    'ci2mg': {'num_layers': 3, 'contrastive_weight': 1.0, 'generation_weight': 1.0, 'learning_rate': 0.001},
    'lattice': {'embedding_reg_weight': 0.0, 'learning_rate': 0.001},
    'lgmrec': {'num_layers': 2, 'num_modality_layers': 2, 'num_hyperedge_layers': 1, 'num_hyperedges': 4,
               'dropout': 0.5, 'global_weight': 0.3, 'contrastive_weight': 1e-4, 'embedding_reg_weight': 1e-6},
    'lightgcn': {'num_layers': 2, 'embedding_reg_weight': 0.0},
    'mgcn': {'contrastive_weight': 0.03},
    'milk': {'invariance_weight': 50.0, 'alignment_weight': 0.05, 'dirichlet_concentration': 0.1,
             'embedding_reg_weight': 1e-4, 'train_features': True, 'learning_rate': 0.001},
    'sibrar': {'contrastive_weight': 0.01, 'contrastive_temperature': 10.0},
    'slmrec': {'self_supervised_temperature': 0.1, 'self_supervised_weight': 0.1, 'embedding_reg_weight': 1e-4,
               'learning_rate': 0.001},
    'vbpr': {'embedding_norm_weight': 1.0, 'embedding_reg_weight': 0.0, 'projection_reg_weight': 0.0,
             'learning_rate': 0.001},
}
"""What DGMRec's authors found best for other models on tiktok, as their release keeps it."""


@pytest.mark.parametrize('model', PEERS_ON_TIKTOK)
@pytest.mark.parametrize('name', ['tiktok', 'lfm2k'])
def test_peers_have_the_settings_of_the_comparison(model: str, name: str) -> None:
    preset = load_preset('reference', name, model)
    assert {**preset['model'], **preset['training']} == PEERS_ON_TIKTOK[model]
    assert MODELS[model].config_class.from_dict(preset['model']).to_dict().items() >= preset['model'].items()
    assert TrainingConfig.from_dict(preset['training']).to_dict().items() >= preset['training'].items()


@pytest.mark.parametrize(('kind', 'name', 'model'), [
    ('default', 'tiktok', 'bm3'), ('reference', 'baby', 'bm3'), ('reference', 'tiktok', 'popularity')])
def test_peers_without_a_preset_have_their_defaults(kind: str, name: str, model: str) -> None:
    assert load_preset(kind, name, model) == {'model': {}, 'training': {}}


def test_sets_without_a_preset_of_the_project_get_the_defaults() -> None:
    assert load_preset('default', 'no such set') == {'model': {}, 'training': {}}


@pytest.mark.parametrize('config', [DGMRecConfig(), TrainingConfig(), *(m.config_class() for m in MODELS.values())])
def test_settings_survive_json_and_cannot_be_changed(config: DGMRecConfig) -> None:
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.hidden_channels = 3


def test_replace_gives_a_copy() -> None:
    config = DGMRecConfig()
    assert config.replace(knn_k=3, imputation='zero').to_dict() == config.to_dict() | {'knn_k': 3, 'imputation': 'zero'}
    assert config == DGMRecConfig()


@pytest.mark.parametrize('make', [DGMRecConfig().replace, lambda **values: DGMRecConfig.from_dict(values)])
def test_unknown_setting_names_the_near_miss(make: object) -> None:
    with pytest.raises(UserError, match=r"unknown setting 'hiden_channels' of DGMRecConfig; did you mean "
                                        r"'hidden_channels'\? \(known: hidden_channels, "):
        make(hiden_channels=32)


@pytest.mark.parametrize(('values', 'message'), [
    ({'knn_k': 2.5}, r"'knn_k' must be of type int \(got 2.5\)"),
    ({'knn_k': True}, "'knn_k' must be of type int"),
    ({'knn_k': None}, "'knn_k' must be of type int"),
    ({'noise_scale': 'much'}, r"'noise_scale' must be of type float \(got 'much'\)"),
    ({'noise_scale': False}, "'noise_scale' must be of type float"),
    ({'train_features': 1}, "'train_features' must be of type bool"),
    ({'imputation': 3}, "'imputation' must be of type str"),
    ({'imputation': 'median'}, r"'imputation' must be one of mean, zero.* \(got 'median'\)"),
    ({'generate_for': 'both'}, r"'generate_for' must be one of none, single, all \(got 'both'\)"),
    ({'inference_graph': 'last'}, "'inference_graph' must be one of refreshed, initial"),
    ({'knn_missing': 'keep'}, "'knn_missing' must be one of drop_after, exclude_before"),
    ({'hidden_channels': 0}, r"'hidden_channels' must be greater than 0 \(got 0\)"),
    ({'knn_k': -1}, "'knn_k' must be greater than 0"),
    ({'graph_refresh_every': 0}, "'graph_refresh_every' must be greater than 0"),
    ({'intra_modal_temperature': 0.0}, "'intra_modal_temperature' must be greater than 0"),
    ({'num_layers': -1}, r"'num_layers' must not be negative \(got -1\)"),
    ({'club_weight': -0.1}, "'club_weight' must not be negative"),
    ({'graph_refresh_rate': 1.1}, r"'graph_refresh_rate' must be between 0 and 1 \(got 1.1\)"),
    ({'noise_scale': float('inf')}, "'noise_scale' must be a finite number"),
    ({'noise_scale': float('nan')}, "'noise_scale' must be a finite number"),
    ({'knn_k': 2**31}, "'knn_k' takes whole numbers of at most 2147483647 in size"),
    ({'knn_k': 10**5000}, "'knn_k' takes whole numbers of at most 2147483647"),
    ({'noise_scale': 10**400}, "'noise_scale' takes whole numbers of at most 2147483647"),
    ({'noise_scale': -10**400}, "'noise_scale' takes whole numbers of at most 2147483647"),
    ({'imputation': 'm' * 100}, r"one of mean, .* \(got 'm{59}\)"),
])
def test_values_that_do_not_fit_are_errors(values: dict[str, object], message: str) -> None:
    for make in (DGMRecConfig, DGMRecConfig().replace):
        with pytest.raises(UserError, match=message):
            make(**values)


@pytest.mark.parametrize('values', [{'batch_size': 0}, {'learning_rate': 0.0}, {'epochs': 0}, {'patience': 0},
                                    {'eval_every': 0}, {'learning_rate_decay': 0.0}])
def test_training_settings_must_be_positive(values: dict[str, object]) -> None:
    with pytest.raises(UserError, match='must be greater than 0'):
        TrainingConfig(**values)


@pytest.mark.parametrize('values', [{'graph_refresh_rate': 0.0}, {'graph_refresh_rate': 1.0}, {'noise_scale': 0.0},
                                    {'num_layers': 0}, {'num_modality_layers': 0}, {'knn_k': 2**31 - 1}])
def test_values_at_the_edge_fit(values: dict[str, object]) -> None:
    assert DGMRecConfig(**values).to_dict().items() >= values.items()


def test_an_integer_serves_as_a_float() -> None:
    value = DGMRecConfig(noise_scale=1).noise_scale
    assert isinstance(value, float)
    assert value == 1.0


def test_parse_settings_reaches_every_config() -> None:
    model, training = parse_settings(
        ['knn_k=20', 'learning_rate=1e-4', 'train_features=False', 'imputation=zero', 'club_weight=0', 'knn_k=30'],
        DGMRecConfig(), TrainingConfig())
    assert model == DGMRecConfig(knn_k=30, train_features=False, imputation='zero', club_weight=0.0)
    assert training == TrainingConfig(learning_rate=1e-4)
    assert parse_settings([], DGMRecConfig()) == (DGMRecConfig(),)


@pytest.mark.parametrize(('pair', 'message'), [
    ('knn_k', r"--set takes key=value \(got 'knn_k'\)"),
    ('knnk=3', r"unknown setting 'knnk' in --set; did you mean 'knn_k'\?"),
    ('epoch=3', "did you mean 'epochs'"),
    ('knn_k=many', r"'knn_k' must be of type int \(got 'many'\)"),
    ('knn_k=', "'knn_k' must be of type int"),
    ('knn_k=__import__("os")', "'knn_k' must be of type int"),
    ('=3', "unknown setting ''"),
    pytest.param('learning_rate=1' + '0' * 400, "'learning_rate' takes whole numbers of at most", id='400 digits'),
    pytest.param('knn_k=' + '1' * 5000, r"'knn_k' must be of type int \(got '1{59}\)$", id='5000 digits'),
    pytest.param('knn_k=' + '[' * 100_000, "'knn_k' must be of type int", id='deep brackets'),
    ('learning_rate=1e999', "'learning_rate' must be a finite number"),
])
def test_parse_settings_errors(pair: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_settings([pair], DGMRecConfig(), TrainingConfig())


@pytest.mark.parametrize(('max_steps', 'num_interactions', 'expected'), [
    (128, 1, 100), (128, 12_800, 100), (128, 12_801, 101), (128, 1_280_000, 10_000), (0, 1_280_000, 100)])
def test_large_sets_get_larger_batches_and_no_more_steps(max_steps: int, num_interactions: int, expected: int) -> None:
    training = TrainingConfig(batch_size=100, max_steps=max_steps)
    assert training.interactions_per_step(num_interactions) == expected


def test_a_misspelt_set_gets_the_settings_of_tiktok_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="no released settings for 'babby', so these are those of tiktok; did you"):
        found = DGMRecConfig.reference('babby')
    assert found == DGMRecConfig.reference('tiktok')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert DGMRecConfig.reference('lfm2k') == DGMRecConfig.reference('tiktok')
