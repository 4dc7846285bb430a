"""Tests of dgmrec_pyg.experiment: whole runs on a small set."""

from __future__ import annotations

import csv
import json
import math
import signal
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_set import NUM_ITEMS, NUM_USERS, SIZES, write_masks, write_small_set
from test_trainer import without_times
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import DGMRecConfig, TrainingConfig, load_preset
from dgmrec_pyg.datasets import data_hash
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.experiment import build_model, describe, fit_model, resolve_device, resolve_settings, run_experiment
from dgmrec_pyg.loading import RunSettings, dataset_name, load_data
from dgmrec_pyg.nn import MODELS, LightGCN
from dgmrec_pyg.rundir import RunDirectory
from dgmrec_pyg.schema import INTERACTS, missing_matrix, training_edges
from dgmrec_pyg.training import load_checkpoint

CPU = torch.device('cpu')
QUICK = ('hidden_channels=8', 'knn_k=4', 'epochs=3', 'batch_size=128', 'learning_rate=0.01', 'graph_refresh_every=2')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the set 'tiny'."""
    write_small_set(tmp_path / 'data' / 'tiny')
    return tmp_path / 'data'


def make_run(root: Path, **values: Any) -> RunSettings:
    return RunSettings(**{'dataset': 'tiny', 'root': str(root), 'settings': QUICK, **values})


def carry_out(run: RunSettings, path: Path, resume: bool = False) -> dict[str, Any]:
    """Runs and returns what metrics.json holds, without times."""
    metrics = run_experiment(run, RunDirectory(path, resume))
    stored = json.loads((path / 'metrics.json').read_text())
    assert stored == json.loads(json.dumps(metrics))
    return timeless(stored)


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if not key.endswith('seconds')}
    return value


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    return [value]


def files(path: Path) -> set[Path]:
    return {file for file in path.rglob('*') if file.is_file()}


# The run directory ####################################################################################################


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run with missing modalities; beside it, ``data`` holds the set."""
    base = tmp_path_factory.mktemp('finished')
    folder = write_small_set(base / 'data' / 'tiny')
    write_masks(folder, 0.6)
    items = [f'{item}\tmovie-{item}\tThe movie {item}' for item in range(NUM_ITEMS)]
    (folder / 'items.csv').write_text('\n'.join(['itemID\traw\tname', *items]) + '\n')
    before = files(base)
    carry_out(make_run(base / 'data'), base / 'run')
    assert {file.parent for file in files(base) - before} == {base / 'run'}
    return base / 'run'


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / 'metrics.jsonl').read_text().splitlines()]


def test_files_of_the_run_directory(finished: Path) -> None:
    assert sorted(file.name for file in finished.iterdir()) == [
        'checkpoint.previous.pt', 'checkpoint.pt', 'config.json', 'curves.png', 'epochs.csv', 'metrics.json',
        'metrics.jsonl', 'recommendations.csv']
    assert (finished / 'curves.png').read_bytes().startswith(b'\x89PNG')


def test_config_is_fully_resolved(finished: Path) -> None:
    config = json.loads((finished / 'config.json').read_text())
    run = make_run(finished.parent / 'data')
    assert config['model'] == DGMRecConfig(hidden_channels=8, knn_k=4, graph_refresh_every=2).to_dict()
    assert config['training'] == TrainingConfig(epochs=3, batch_size=128, learning_rate=0.01).to_dict()
    assert config['run']['device'] == str(resolve_device('auto'))
    assert config['run'] | {'device': 'auto'} == json.loads(json.dumps(vars(run)))
    data = config['data']
    assert data['hash'] == data_hash(load_data(run))
    assert (data['num_users'], data['num_items'], data['is_new']) == (NUM_USERS, NUM_ITEMS, 0)
    assert (data['num_train'], data['num_val'], data['num_test']) == (240, 80, 80)
    assert data['modalities'] == SIZES
    assert data['missing'] == {'image': 12, 'text': 12}
    assert {'dgmrec_pyg', 'torch', 'torch-geometric', 'numpy', 'python'} <= set(config['versions'])


def test_a_line_per_epoch(finished: Path) -> None:
    lines = read_lines(finished)
    assert [line['epoch'] for line in lines] == [1, 2, 3]
    for line in lines:
        assert set(line) == {'epoch', 'loss', 'terms', 'train_seconds', 'eval_seconds', 'val'}
        assert set(line['terms']) == {'softmax', 'embedding_reg', 'feature_reg'}
        assert {'recall@20', 'ndcg@5', 'precision@10', 'map@20', 'mrr@50', 'hit_ratio@20'} <= set(line['val'])
        assert line['train_seconds'] > 0 < line['eval_seconds']
        assert all(math.isfinite(number) for number in numbers(line))


def test_metrics(finished: Path) -> None:
    metrics, lines = json.loads((finished / 'metrics.json').read_text()), read_lines(finished)
    assert set(metrics) == {'val', 'test', 'best_epoch', 'epochs', 'seconds', 'slices', 'generation', 'interrupted',
                            'total_seconds'}
    best = max(lines, key=lambda line: line['val']['recall@20'])
    assert (metrics['best_epoch'], metrics['val'], metrics['epochs']) == (best['epoch'], best['val'], 3)
    assert metrics['seconds'] == pytest.approx(sum(line['train_seconds'] + line['eval_seconds'] for line in lines))
    assert set(metrics['test']) == set(metrics['val'])
    assert set(metrics['slices']) == {'missing:none', 'missing:image', 'missing:text', 'missing:all', 'cold', 'warm'}
    assert sum(metrics['slices'][part]['num_labels'] for part in ('cold', 'warm')) == 80
    assert metrics['interrupted'] is False
    assert all(math.isfinite(number) for number in numbers(metrics))


def test_generation_by_modality_and_pattern(finished: Path) -> None:
    generation = json.loads((finished / 'metrics.json').read_text())['generation']
    assert {modality: {pattern: part['num_items'] for pattern, part in quality.items()}
            for modality, quality in generation.items()} == {
        'image': {'missing:image': 6, 'missing:all': 6, 'all': 12},
        'text': {'missing:text': 6, 'missing:all': 6, 'all': 12},
    }
    for part in (part for quality in generation.values() for part in quality.values()):
        assert set(part['cosine']) == set(part['centered_cosine']) == {'generated', 'imputed'}
        assert part['centered_cosine']['imputed'] == 0.0
        assert math.isfinite(part['cosine']['generated'])


def test_recommendations(finished: Path) -> None:
    with open(finished / 'recommendations.csv', encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ['user', 'rank', 'item', 'score', 'name']
    assert len(rows) == NUM_USERS * 20
    assert all(row['item'] == f"movie-{row['name'].removeprefix('The movie ')}" for row in rows)
    edges = training_edges(load_data(make_run(finished.parent / 'data')))
    seen = {(str(user), f'movie-{item}') for user, item in edges.t().tolist()}
    assert not seen & {(row['user'], row['item']) for row in rows}
    for user in {row['user'] for row in rows}:
        own = [row for row in rows if row['user'] == user]
        assert [int(row['rank']) for row in own] == list(range(1, 21))
        scores = [float(row['score']) for row in own]
        assert scores == sorted(scores, reverse=True)


# Seeds and resuming ###################################################################################################


def test_same_run_same_numbers_another_seed_others(root: Path, tmp_path: Path) -> None:
    first, second, other, masked = (
        carry_out(make_run(root, missing_ratio=0.5, **seeds), tmp_path / str(number))
        for number, seeds in enumerate(({}, {}, {'seed': 1}, {'missing_seed': 1})))
    assert first == second
    assert without_times(read_lines(tmp_path / '0')) == without_times(read_lines(tmp_path / '1'))
    name = 'recommendations.csv'
    assert (tmp_path / '0' / name).read_bytes() == (tmp_path / '1' / name).read_bytes()
    assert first['test'] != other['test']
    assert first['slices'] != masked['slices']


def interrupt_after(output: RunDirectory, epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets Ctrl-C be pressed at the end of an epoch."""
    add_epoch = output.add_epoch

    def add_and_interrupt(record: dict[str, Any]) -> None:
        add_epoch(record)
        if record['epoch'] == epoch:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(output, 'add_epoch', add_and_interrupt)


def test_an_interrupted_run_is_complete_and_goes_on(root: Path, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(root, missing_ratio=0.5, compare=('popularity', ))
    expected = carry_out(run, tmp_path / 'whole')
    output = RunDirectory(tmp_path / 'half')
    interrupt_after(output, 2, monkeypatch)
    metrics = run_experiment(run, output)
    assert metrics['interrupted']
    assert 'compare' not in metrics
    assert len(read_lines(output.path)) == 2
    assert {file.name for file in files(tmp_path / 'half')} == {file.name for file in files(tmp_path / 'whole')}

    assert carry_out(run, output.path, resume=True) == expected
    assert without_times(read_lines(output.path)) == without_times(read_lines(tmp_path / 'whole'))
    assert (output.path / 'recommendations.csv').read_bytes() == (tmp_path / 'whole/recommendations.csv').read_bytes()


def test_more_epochs_equal_training_through(root: Path, tmp_path: Path) -> None:
    expected = carry_out(make_run(root, settings=(*QUICK, 'epochs=5')), tmp_path / 'long')
    carry_out(make_run(root), tmp_path / 'short')
    assert carry_out(make_run(root, settings=(*QUICK, 'epochs=5')), tmp_path / 'short', resume=True) == expected


def test_models_to_compare_with_go_on_too(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[str, int]] = []

    class Spy(LightGCN):
        def start_epoch(self, epoch: int) -> None:
            trained.append(('spy', epoch))
            if len(trained) == 5:  # the second epoch of the second time
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setitem(MODELS, 'spy', Spy)
    run = make_run(root, compare=('spy', 'popularity'))
    expected = carry_out(run, tmp_path / 'whole')
    assert run_experiment(run, RunDirectory(tmp_path / 'half'))['interrupted']
    assert [epoch for _, epoch in trained] == [1, 2, 3, 1, 2]
    assert carry_out(run, tmp_path / 'half', resume=True) == expected
    assert [epoch for _, epoch in trained] == [1, 2, 3, 1, 2, 3]
    assert carry_out(run, tmp_path / 'half', resume=True) == expected
    assert len(trained) == 6


def test_a_damaged_checkpoint_costs_one_epoch(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(root, missing_ratio=0.5)
    expected = carry_out(run, tmp_path / 'whole')
    output = RunDirectory(tmp_path / 'run')
    interrupt_after(output, 2, monkeypatch)
    run_experiment(run, output)
    (output.path / 'checkpoint.pt').write_bytes(b'')
    said: list[str] = []
    with pytest.warns(UserWarning, match="going on from the previous one, 'checkpoint.previous.pt'"):
        metrics = run_experiment(run, RunDirectory(output.path, resume=True), say=said.append)
    assert said[-1] == 'going on after epoch 1'
    assert timeless(json.loads(json.dumps(metrics))) == expected
    assert without_times(read_lines(output.path)) == without_times(read_lines(tmp_path / 'whole'))


def test_resuming_a_finished_run_says_so_and_changes_nothing(root: Path, tmp_path: Path) -> None:
    expected = carry_out(make_run(root), tmp_path / 'run')
    said: list[str] = []
    metrics = run_experiment(make_run(root), RunDirectory(tmp_path / 'run', resume=True), say=said.append)
    assert timeless(json.loads(json.dumps(metrics))) == expected
    assert said[1:] == ['going on after epoch 3',
                        'nothing was left to train: the last epoch was reached, or patience was over']


@pytest.mark.parametrize(('values', 'message'), [
    ({'settings': (*QUICK, 'knn_k=5')}, r'made with knn_k 4 \(model\), now it is 5'),
    ({'seed': 1}, r'made with seed 0 \(run\), now it is 1'),
    ({'missing_ratio': 0.5}, r"made with hash '.*' \(data\)"),
    ({'model': 'lightgcn', 'settings': ()}, r"made with model 'dgmrec' \(run\), now it is 'lightgcn'"),
])
def test_resuming_with_other_settings_is_refused(root: Path, tmp_path: Path, values: dict[str, Any],
                                                 message: str) -> None:
    carry_out(make_run(root), tmp_path / 'run')
    before = {file: file.read_bytes() for file in files(tmp_path)}
    with pytest.raises(UserError, match=message):
        run_experiment(make_run(root, **values), RunDirectory(tmp_path / 'run', resume=True))
    assert {file: file.read_bytes() for file in files(tmp_path)} == before


# Which modalities are missing #########################################################################################


def test_the_file_of_the_ratio_is_taken_where_there_is_one(root: Path) -> None:
    masks = {ratio: torch.from_numpy(np.stack(list(write_masks(root / 'tiny', ratio).values()), axis=1))
             for ratio in (0.3, 0.6)}
    for ratio in (0.3, 0.6):
        assert missing_matrix(load_data(make_run(root, missing_ratio=ratio))).equal(masks[ratio])
        path = str(root / 'tiny' / f'missing_{ratio}.npz')
        assert missing_matrix(load_data(make_run(root, missing_file=path))).equal(masks[ratio])
    assert missing_matrix(load_data(make_run(root))).equal(masks[0.3])  # the smallest, where none is named


def test_another_ratio_is_drawn(root: Path) -> None:
    write_masks(root / 'tiny', 0.3)
    drawn, again, other = (missing_matrix(load_data(make_run(root, missing_ratio=0.5, missing_seed=seed)))
                           for seed in (0, 0, 1))
    assert int(drawn.any(dim=1).sum()) == 15
    assert drawn.equal(again)
    assert not drawn.equal(other)


def test_a_ratio_that_is_all_but_equal_takes_the_file(root: Path) -> None:
    masks = write_masks(root / 'tiny', 0.6)
    assert 0.9 - 0.3 != 0.6
    found = missing_matrix(load_data(make_run(root, missing_ratio=0.9 - 0.3)))
    assert found.equal(torch.from_numpy(np.stack(list(masks.values()), axis=1)))


def test_ratio_0_is_looked_up_like_any_other(root: Path) -> None:
    items = np.arange(NUM_ITEMS)
    np.savez(root / 'tiny' / 'missing_0.0.npz', image=items < 0, text=items < 3)
    assert missing_matrix(load_data(make_run(root, missing_ratio=0))).sum() == 3


@pytest.mark.parametrize('values', [{'no_missing': True}, {'missing_ratio': 0.0}])
def test_no_mask_at_all(root: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    write_masks(root / 'tiny', 0.3)
    assert not missing_matrix(load_data(make_run(root, **values))).any()
    assert not missing_matrix(load_data(make_run(root, dataset='synthetic', **values))).any()
    metrics = carry_out(make_run(root, **values), tmp_path / 'run')
    assert metrics['generation'] == {}
    assert 'missing:image' not in metrics['slices']


def test_all_items_may_lack_something(root: Path, tmp_path: Path) -> None:
    assert missing_matrix(load_data(make_run(root, missing_ratio=1.0))).any(dim=1).all()
    metrics = carry_out(make_run(root, missing_ratio=1.0), tmp_path / 'run')
    assert all(math.isfinite(number) for number in numbers(metrics))


def test_masked_features_are_never_read(root: Path, tmp_path: Path) -> None:
    masks = write_masks(root / 'tiny', 0.6)
    expected = carry_out(make_run(root), tmp_path / 'known')
    for modality, mask in masks.items():
        features = np.load(root / 'tiny' / f'{modality}_feat.npy')
        features[mask] = np.nan
        np.save(root / 'tiny' / f'{modality}_feat.npy', features)
    found = carry_out(make_run(root), tmp_path / 'unknown')
    assert found.pop('generation') == {}  # without the truth there is nothing to compare with
    assert expected.pop('generation') != {}
    assert found == expected


# Settings, models, sets ###############################################################################################


def test_new_items_end_to_end(root: Path, tmp_path: Path) -> None:
    run = make_run(root, new_items=True, missing_ratio=0.6, compare=('lightgcn', ), settings=QUICK[2:4])
    data = load_data(run)
    is_new = data['item'].is_new
    assert int(is_new.sum()) == 6
    assert not is_new[training_edges(data)[1]].any()
    assert not is_new[data[INTERACTS].val_edge_label_index[1]].any()
    metrics = carry_out(run, tmp_path / 'run')
    for part in (metrics, metrics['compare']['lightgcn']):
        assert {'new', 'old', 'cold', 'warm'} <= set(part['slices'])
        assert part['among_new_items']['num_items'] == 6
        assert part['among_new_items']['recall@20'] == 1  # 20 are more than there are to rank
        assert all(math.isfinite(number) for number in numbers(part))
    total = data[INTERACTS].test_edge_label_index.unique(dim=1).size(1)
    assert metrics['slices']['new']['num_labels'] + metrics['slices']['old']['num_labels'] <= total
    assert json.loads((tmp_path / 'run' / 'config.json').read_text())['data']['is_new'] == 6


def test_compared_models_are_trained_with_their_own_settings(root: Path, tmp_path: Path) -> None:
    metrics = carry_out(make_run(root, compare=('popularity', 'lightgcn', 'bprmf')), tmp_path / 'run')
    assert list(metrics['compare']) == ['popularity', 'lightgcn', 'bprmf']
    assert [part['best_epoch'] > 0 for part in metrics['compare'].values()] == [False, True, True]
    assert json.loads((tmp_path / 'run' / 'config.json').read_text())['compare']['lightgcn']['hidden_channels'] == 64
    settings = tuple(pair for pair in QUICK if pair.split('=')[0] in TrainingConfig().to_dict())
    alone = carry_out(make_run(root, model='lightgcn', settings=settings), tmp_path / 'alone')
    assert metrics['compare']['lightgcn'].items() <= alone.items()


def test_a_compared_model_that_does_not_fit_is_found_before_anything_is_written(root: Path, tmp_path: Path) -> None:
    (root / 'tiny' / 'text_feat.npy').unlink()
    run = make_run(root, model='lightgcn', settings=('epochs=2', ), compare=('dgmrec', ))
    with pytest.raises(UserError, match='two or more modalities'):
        run_experiment(run, RunDirectory(tmp_path / 'run'))
    assert not (tmp_path / 'run').exists()


class Stopping(LightGCN):
    """Ctrl-C is pressed in its second epoch."""

    def start_epoch(self, epoch: int) -> None:
        if epoch == 2:
            signal.raise_signal(signal.SIGINT)


class Exploding(LightGCN):
    """Its loss is not finite."""

    def loss_terms(self, *args: Tensor) -> dict[str, Tensor]:
        return {name: math.inf * term for name, term in super().loss_terms(*args).items()}


class Late(LightGCN):
    """Its loss is not finite in the second epoch."""

    epoch = 0

    def start_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def loss_terms(self, *args: Tensor) -> dict[str, Tensor]:
        scale = math.inf if self.epoch == 2 else 1.0
        return {name: scale * term for name, term in super().loss_terms(*args).items()}


class Large(LightGCN):
    """Needs more memory than there can be."""

    def __init__(self, data: HeteroData, config: Any) -> None:
        super().__init__(data, config)
        torch.empty(2**58)


class Growing(LightGCN):
    """Needs more memory than there can be, in training."""

    def loss_terms(self, *args: Tensor) -> dict[str, Tensor]:
        return {'bpr': torch.empty(2**58).sum()}


class Failing(LightGCN):
    """Fails in a way that is nobody's but the author's."""

    def __init__(self, data: HeteroData, config: Any) -> None:
        raise RuntimeError('a bug')


@pytest.mark.parametrize('kind', [Large, Growing])
@pytest.mark.parametrize('is_there', [False, True])
def test_memory_that_does_not_suffice(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      kind: type[LightGCN], is_there: bool) -> None:
    monkeypatch.setitem(MODELS, 'large', kind)
    if is_there:
        (tmp_path / 'run').mkdir()
    before = set(tmp_path.rglob('*'))
    expected = r'not enough memory .*; lower hidden_channels .*size=\.\.\.\), or raise max_steps .*max_steps=\.\.\.\)$'
    with pytest.raises(UserError, match=expected):
        run_experiment(make_run(root, model='large', settings=()), RunDirectory(tmp_path / 'run'))
    assert set(tmp_path.rglob('*')) == before


def test_other_errors_keep_their_kind(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, 'failing', Failing)
    with pytest.raises(RuntimeError, match='a bug'):
        run_experiment(make_run(root, model='failing', settings=()), RunDirectory(tmp_path / 'run'))


def test_ctrl_c_while_comparing_keeps_what_is_complete(root: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, 'stopping', Stopping)
    run = make_run(root, compare=('popularity', 'stopping', 'lightgcn'))
    metrics = carry_out(run, tmp_path / 'run')
    assert metrics['interrupted']
    assert list(metrics['compare']) == ['popularity']
    assert metrics['epochs'] == 3


def test_a_comparison_that_fails_keeps_the_run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, 'exploding', Exploding)
    with pytest.raises(UserError, match=r'in epoch 1, step 1 of 2 \(bpr inf, embedding_reg inf\)'):
        run_experiment(make_run(root, compare=('exploding', )), RunDirectory(tmp_path / 'run'))
    expected = carry_out(make_run(root), tmp_path / 'alone')
    assert timeless(json.loads((tmp_path / 'run' / 'metrics.json').read_text())) == expected


def test_users_who_have_seen_everything_are_found_before_anything_is_written(tmp_path: Path) -> None:
    folder = write_small_set(tmp_path / 'tiny')
    lines = [f'{user}\t{item}\t0' for user in range(3) for item in range(NUM_ITEMS)] + ['3\t0\t0', '3\t1\t1', '3\t2\t2']
    (folder / 'tiny.inter').write_text('\n'.join(['userID\titemID\tx_label', *lines[:-3]]) + '\n')
    with pytest.raises(UserError, match='has no validation interactions of users with training interactions'):
        run_experiment(make_run(tmp_path), RunDirectory(tmp_path / 'run'))
    (folder / 'tiny.inter').write_text('\n'.join(['userID\titemID\tx_label', *lines]) + '\n')
    with pytest.warns(UserWarning, match='90 of 91 training interactions are left out'):
        run_experiment(make_run(tmp_path), RunDirectory(tmp_path / 'run'))


def test_a_loss_that_grows_beyond_all_bounds_at_once(root: Path, tmp_path: Path) -> None:
    tables = {modality: np.load(root / 'tiny' / f'{modality}_feat.npy') for modality in SIZES}
    for modality in SIZES:
        np.save(root / 'tiny' / f'{modality}_feat.npy', 1e30 * tables[modality])
    given = make_run(root, settings=(*QUICK, 'feature_scale=given', 'generate_from=encodings'))
    with pytest.raises(UserError, match=r"step 1 of 2 \(.*reconstruction inf.*scale of the features \(what .*run'\)$"):
        run_experiment(given, RunDirectory(tmp_path / 'run'))
    assert {file.name for file in files(tmp_path / 'run')} == {'config.json', 'epochs.csv', 'metrics.jsonl',
                                                               'failure.pt'}
    assert load_checkpoint(tmp_path / 'run' / 'failure.pt')['failure']['terms']['reconstruction'] == math.inf
    carry_out(make_run(root), tmp_path / 'unit_scale')  # which is what keeps it within bounds
    for modality, table in tables.items():
        np.save(root / 'tiny' / f'{modality}_feat.npy', table)
    carry_out(given, tmp_path / 'mended')


def test_a_loss_that_grows_later_names_what_is_left(root: Path, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, 'late', Late)
    with pytest.raises(UserError, match=r"in epoch 2, .*\(what was written before is in '.*run'\)$"):
        run_experiment(make_run(root, model='late', settings=()), RunDirectory(tmp_path / 'run'))
    assert {file.name for file in files(tmp_path / 'run')} == {'config.json', 'epochs.csv', 'metrics.jsonl',
                                                               'checkpoint.pt', 'failure.pt'}
    assert len(read_lines(tmp_path / 'run')) == 1
    assert load_checkpoint(tmp_path / 'run' / 'checkpoint.pt')['fit']['epoch'] == 1


def test_a_checkpoint_beside_a_model_without_training_is_not_looked_at(root: Path, tmp_path: Path) -> None:
    run = make_run(root, model='popularity', settings=())
    expected = carry_out(run, tmp_path / 'run')
    made_of = RunDirectory(tmp_path / 'run', resume=True)
    made_of.open(describe(load_data(run), run))
    made_of.save_state({'fit': 'nonsense'})
    assert carry_out(run, tmp_path / 'run', resume=True) == expected


def test_what_cannot_be_deterministic_leaves_nothing(root: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    class Unpooling(LightGCN):

        def loss_terms(self, *args: Tensor) -> dict[str, Tensor]:
            index = torch.zeros(1, 1, 2, dtype=torch.long)
            return {'bpr': torch.nn.functional.max_unpool1d(torch.ones(1, 1, 2), index, 2).sum()}

    monkeypatch.setitem(MODELS, 'unpooling', Unpooling)
    with pytest.raises(UserError, match='--deterministic cannot be kept'):
        run_experiment(make_run(root, model='unpooling', settings=(), deterministic=True),
                       RunDirectory(tmp_path / 'run'))
    assert not (tmp_path / 'run').exists()


def test_the_state_that_a_run_went_on_from_is_not_kept(root: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(root, model='lightgcn', settings=(), compare=('bprmf', ))
    carry_out(make_run(root, model='lightgcn', settings=('epochs=1', ), compare=('bprmf', )), tmp_path / 'run')
    output = RunDirectory(tmp_path / 'run', resume=True)
    read, save, parts, kept = output.state_to_resume, output.save_state, [], []

    def note(*arguments: Any) -> dict[str, Any] | None:
        state = read(*arguments)
        parts.append(weakref.ref(state['generators']['sampler']))
        return state

    def look(state: dict[str, Any], compared: str | None = None) -> None:
        kept.append((compared, [part() is not None for part in parts]))
        save(state, compared)

    monkeypatch.setattr(output, 'state_to_resume', note)
    monkeypatch.setattr(output, 'save_state', look)
    run_experiment(replace(run, settings=('epochs=2', )), output)
    assert kept == [(None, [False, True]), ('bprmf', [False, False])]


def test_popularity_needs_no_training(root: Path, tmp_path: Path) -> None:
    metrics = carry_out(make_run(root, model='popularity', settings=()), tmp_path / 'run')
    assert (metrics['best_epoch'], metrics['epochs']) == (0, 0)
    assert set(metrics['val']) == set(metrics['test'])
    assert 'generation' not in metrics
    assert carry_out(make_run(root, model='popularity', settings=()), tmp_path / 'run', resume=True) == metrics


def test_training_never_sees_the_test_set(root: Path) -> None:
    run = make_run(root)
    config, training = resolve_settings(run)
    data, other = load_data(run), load_data(run)
    other[INTERACTS].test_edge_label_index = other[INTERACTS].test_edge_label_index[:, :1]
    one, two = (fit_model(part, build_model(part, 'dgmrec', config, 0, CPU), training, 0) for part in (data, other))
    assert one.fit is not None
    assert two.fit is not None
    assert without_times(one.fit.records) == without_times(two.fit.records)
    assert one.metrics['test'] != two.metrics['test']


def test_validation_items_may_be_left_out_of_the_test_ranking(root: Path) -> None:
    data, run = load_data(make_run(root)), make_run(root, model='popularity', settings=())
    config, training = resolve_settings(run)
    model = build_model(data, 'popularity', config, 0, CPU)
    shown, masked = (fit_model(data, model, training.replace(mask_validation=mask), 0).metrics
                     for mask in (False, True))
    assert shown['val'] == masked['val']
    assert shown['test'] != masked['test']
    assert shown['test']['recall@10'] <= masked['test']['recall@10']


def test_the_reference_preset(root: Path) -> None:
    released = load_preset('reference', 'tiktok')
    config, training = resolve_settings(make_run(root, preset='reference', settings=('epochs=2', )))
    assert config == DGMRecConfig.reference('tiktok')
    assert training == TrainingConfig.from_dict({**released['training'], 'epochs': 2})
    config, training = resolve_settings(make_run(root, dataset=str(root / 'baby'), preset='reference', settings=()))
    assert config == DGMRecConfig.reference('baby')
    assert training.patience == 30


def test_the_project_s_preset_is_found_by_the_name_of_the_set() -> None:
    preset = load_preset('default', 'synthetic')
    config, training = resolve_settings(RunSettings())
    assert config == DGMRecConfig.from_dict(preset['model'])
    assert training == TrainingConfig.from_dict(preset['training'])


def test_sets_by_name_and_by_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = data_hash(load_data(make_run(root)))
    monkeypatch.setenv('HOME', str(root.parent))
    monkeypatch.chdir(root / 'tiny')
    for dataset, at in ((str(root / 'tiny'), 'none'), ('~/data/tiny', 'none'), ('.', 'none'), ('../tiny', 'none'),
                        ('tiny', '~/data'), ('tiny', str(root)), ('../tiny/../tiny', 'none')):
        assert data_hash(load_data(RunSettings(dataset, at))) == expected
        assert dataset_name(dataset) == 'tiny'
    with pytest.raises(UserError, match=r"there is no folder '.*nothing'"):
        load_data(make_run(root, dataset='./nothing'))
    with pytest.raises(UserError, match=r"there is no set 'tini' .*did you mean 'tiny'\?"):
        load_data(make_run(root, dataset='tini'))


@pytest.mark.parametrize(('values', 'message'), [
    ({'missing_ratio': -0.1}, r'from 0 to 1 \(got -0.1\)'),
    ({'missing_ratio': 60}, r'from 0 to 1 \(got 60\)'),
    ({'missing_ratio': math.nan}, r'from 0 to 1 \(got nan\)'),
    ({'seed': -1}, r'the seed must be from 0 to 4294967295 \(got -1\)'),
    ({'missing_seed': 2**32}, r'the missing seed must be from 0 to'),
    ({'settings': 5}, "'settings' of a run is 5, of a wrong type"),
    ({'settings': (5, )}, r"'settings' of a run is \(5,\), of a wrong type"),
    ({'seed': '0'}, "'seed' of a run is '0', of a wrong type"),
    ({'dataset': None}, "'dataset' of a run is None, of a wrong type"),
    ({'imputer': 'heat_'}, r"unknown imputer 'heat_'; did you mean 'heat'\? \(known: mean, zero, random,"),
    ({'preset': 'paper'}, r"unknown preset 'paper' \(known: default, reference\)"),
    ({'device': 'gpu'}, r"unknown device 'gpu'.* \(known: auto, cpu, cuda\)"),
])
def test_settings_of_a_run_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RunSettings(**values)


def test_an_imputer_fills_the_features_of_every_model(root: Path, tmp_path: Path) -> None:
    """Its seed is the mask's; the true features are gone, so nothing says how near generated ones come to them."""
    settings = (*QUICK, 'generate_from=encodings')
    run = make_run(root, missing_ratio=0.5, imputer='random', compare=('vbpr', ), settings=settings)
    data, other = load_data(run), load_data(make_run(root, missing_ratio=0.5, imputer='random', missing_seed=1))
    hidden = load_data(make_run(root, missing_ratio=0.5))
    assert data['item'].imputed == 'random'
    assert missing_matrix(data).equal(missing_matrix(hidden))
    both = data['item'].missing_image & other['item'].missing_image
    assert both.any()
    for one, two in ((data, other), (data, hidden)):
        assert (one['item'].x_image != two['item'].x_image)[both].all()
    metrics = carry_out(run, tmp_path / 'random')
    assert 'generation' not in metrics
    assert 'generation' in carry_out(make_run(root, missing_ratio=0.5), tmp_path / 'none')
    other_metrics = carry_out(make_run(root, missing_ratio=0.5, imputer='heat', compare=('vbpr', ), settings=settings),
                              tmp_path / 'heat')
    assert metrics['val'] != other_metrics['val']
    assert metrics['compare']['vbpr']['val'] != other_metrics['compare']['vbpr']['val']


def test_parameters_are_drawn_from_the_seed(root: Path) -> None:
    data = load_data(make_run(root))
    config = DGMRecConfig(hidden_channels=8)
    one, same, other = (build_model(data, 'dgmrec', config, seed, CPU).user_embedding.weight for seed in (0, 0, 1))
    assert one.equal(same)
    assert not one.equal(other)


def test_a_peer_s_preset_is_that_of_its_set() -> None:
    config, training = resolve_settings(RunSettings(dataset='lfm2k', preset='reference', model='slmrec'))
    assert (config.self_supervised_temperature, training.learning_rate, training.patience) == (0.1, 0.001, 20)
    config, training = resolve_settings(RunSettings(dataset='baby', preset='reference', model='slmrec'))
    assert (config.self_supervised_temperature, training.learning_rate, training.patience) == (0.2, 0.01, 30)
    # The same where the peer is compared with DGMRec.
    assert resolve_settings(RunSettings(dataset='tiktok', preset='reference'), 'bm3')[0].dropout == 0.3
    assert resolve_settings(RunSettings(dataset='tiktok'), 'bm3')[0].dropout == 0.5


@pytest.mark.parametrize(('preset', 'model', 'learning_rate'), [
    ('default', 'dgmrec', 0.002),
    ('default', 'lightgcn', 0.001),  # what one model is trained with is not forced on another
    ('reference', 'dgmrec', 0.001),
    ('reference', 'lightgcn', 0.001),
    ('default', 'slmrec', 0.01),
    ('reference', 'slmrec', 0.001),  # what DGMRec's authors found best for it there
])
def test_models_have_training_settings_of_their_own(preset: str, model: str, learning_rate: float) -> None:
    run = RunSettings(dataset='tiktok', preset=preset, model=model)
    assert resolve_settings(run)[1].learning_rate == learning_rate
    assert resolve_settings(RunSettings(dataset='tiktok', preset=preset), model)[1].learning_rate == learning_rate
