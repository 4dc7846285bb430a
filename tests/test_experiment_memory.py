"""Tests of dgmrec_pyg.experiment: what a run holds while it trains and while it measures, and the set read again."""

from __future__ import annotations

import gc
import json
import signal
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_set import write_masks, write_small_set
from test_experiment import carry_out, make_run, timeless
from torch_geometric.data import HeteroData

from dgmrec_pyg import experiment, loading
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.experiment import build_model, fit_model, resolve_settings, run_experiment
from dgmrec_pyg.loading import SYNTHETIC, RunSettings, load_again, load_data
from dgmrec_pyg.nn import MODELS
from dgmrec_pyg.rundir import RunDirectory
from dgmrec_pyg.schema import ITEM, feature_key, item_features, modality_names, without_features
from dgmrec_pyg.training import Trainer

CPU = torch.device('cpu')
TRAINED = sorted(name for name, model in MODELS.items() if model.trainable)
SHORT = ('epochs=1', )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the set 'tiny', which has a mask and raw ids."""
    folder = write_small_set(tmp_path / 'data' / 'tiny')
    write_masks(folder, 0.6)
    (folder / 'items.csv').write_text('itemID\traw\n' + ''.join(f'{item}\tmovie-{item}\n' for item in range(30)))
    return tmp_path / 'data'


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is let go is freed at once, or it stays: the garbage collector might come at any time, or much later."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Watched(RunDirectory):
    """Calls something after each epoch of any model of the run."""

    def __init__(self, path: Path, look: Callable[[], object], resume: bool = False) -> None:
        super().__init__(path, resume)
        self.look = look

    def save_state(self, state: dict[str, Any], compared: str | None = None) -> None:
        super().save_state(state, compared)
        self.look()


class Loads:
    """Counts how often a set is loaded, and knows whether any of its features are still in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._memory: list[weakref.ref[np.ndarray]] = []
        for module in (experiment, loading):
            monkeypatch.setattr(module, 'load_data', self._load)

    def _load(self, run: RunSettings) -> HeteroData:
        data = load_data(run)
        self.count += 1
        for modality in modality_names(data):
            # An array lives as long as any tensor, view or storage of its memory.
            array = item_features(data, modality).numpy().copy()
            data[ITEM][feature_key(modality)] = torch.from_numpy(array)
            self._memory.append(weakref.ref(array))
        return data

    def alive(self) -> int:
        """The number of feature tables in memory."""
        return sum(array() is not None for array in self._memory)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    return Loads(monkeypatch)


def check_freed(run: RunSettings, path: Path, loads: Loads, times: int) -> None:
    """Asserts that a run trains without the set's features, and loads the set so often."""
    alive = []
    metrics = run_experiment(run, Watched(path, lambda: alive.append(loads.alive())))
    assert alive == [0] * (1 + len(metrics.get('compare', {})))
    assert loads.count == times
    assert loads.alive() == 0


@pytest.mark.usefixtures('no_collector')
@pytest.mark.parametrize('model', TRAINED)
def test_features_are_freed_before_any_model_trains(root: Path, tmp_path: Path, loads: Loads, model: str) -> None:
    run = make_run(root, model=model, settings=SHORT)
    check_freed(run, tmp_path / 'run', loads, times=2 if model == 'dgmrec' else 1)


@pytest.mark.usefixtures('no_collector')
@pytest.mark.parametrize(('values', 'times'), [
    ({'preset': 'reference'}, 2), ({'new_items': True}, 2), ({'imputer': 'regression'}, 1), ({'imputer': 'mean'}, 1),
    ({'dataset': SYNTHETIC}, 2), ({'no_missing': True}, 2), ({'missing_ratio': 0.3}, 2),
    ({'compare': ('vbpr', 'lightgcn')}, 2), ({'model': 'lightgcn', 'compare': ('dgmrec', )}, 2)])
def test_features_are_freed_in_runs_of_any_kind(root: Path, tmp_path: Path, loads: Loads, values: dict[str, Any],
                                                times: int) -> None:
    check_freed(make_run(root, **{'settings': SHORT, **values}), tmp_path / 'run', loads, times)


@pytest.mark.usefixtures('no_collector')
def test_features_are_freed_for_a_set_given_as_a_folder(root: Path, tmp_path: Path, loads: Loads) -> None:
    check_freed(make_run(root, dataset=str(root / 'tiny'), settings=SHORT), tmp_path / 'run', loads, times=2)


@pytest.mark.usefixtures('no_collector')
def test_features_are_freed_when_a_run_goes_on(root: Path, tmp_path: Path, loads: Loads) -> None:
    check_freed(make_run(root, settings=SHORT), tmp_path / 'run', loads, times=2)
    alive: list[int] = []
    run_experiment(make_run(root, settings=('epochs=2', )),
                   Watched(tmp_path / 'run', lambda: alive.append(loads.alive()), resume=True))
    assert alive == [0]


@pytest.mark.usefixtures('no_collector')
def test_the_optimizer_is_gone_when_a_model_is_measured(root: Path, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[weakref.ref[Any]] = []
    measured = []

    class Noted(Trainer):

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            found.extend([weakref.ref(self), weakref.ref(self.optimizer)])

    def measure(*args: Any) -> dict[str, Any]:
        measured.append([it() is not None for it in found])
        return {}

    monkeypatch.setattr(experiment, 'Trainer', Noted)
    monkeypatch.setattr(experiment, 'measure', measure)
    run_experiment(make_run(root, settings=SHORT, compare=('vbpr', )), RunDirectory(tmp_path / 'run'))
    assert measured == [[False] * 2, [False] * 4]


@pytest.mark.parametrize('values', [{}, {'new_items': True}, {'imputer': 'mean'}, {'preset': 'reference'}])
def test_a_run_comes_to_the_same_as_training_with_the_set_in_memory(root: Path, tmp_path: Path,
                                                                    values: dict[str, Any]) -> None:
    run = make_run(root, **values)
    config, training = resolve_settings(run)
    data = load_data(run)
    result = fit_model(data, build_model(data, 'dgmrec', config, 0, CPU), training, 0)
    metrics = carry_out(run, tmp_path / 'run')
    expected = timeless(json.loads(json.dumps(result.metrics)))
    assert {name: metrics[name] for name in expected} == expected
    assert ('generation' in expected) == ('imputer' not in values)
    assert 'movie-' in (tmp_path / 'run' / 'recommendations.csv').read_text()


def test_training_does_not_read_features(root: Path) -> None:
    run = make_run(root)
    config, training = resolve_settings(run)
    data, asked = load_data(run), []

    def load_features() -> HeteroData:
        asked.append(run)
        return data

    model = build_model(data, 'dgmrec', config, 0, CPU)
    result = fit_model(without_features(data), model, training, 0, load_features=load_features)
    assert result.metrics['generation']
    assert len(asked) == 1


# The set has changed ##################################################################################################


def change_value(folder: Path) -> None:
    features = np.load(folder / 'text_feat.npy')
    features[0, 0] += 1
    np.save(folder / 'text_feat.npy', features)


def remove_file(folder: Path) -> None:
    (folder / 'text_feat.npy').unlink(missing_ok=True)


def cut_file(folder: Path) -> None:
    (folder / 'text_feat.npy').write_bytes((folder / 'text_feat.npy').read_bytes()[:-4])


def remove_mask(folder: Path) -> None:
    (folder / 'missing_0.6.npz').unlink(missing_ok=True)


@pytest.mark.parametrize(('change', 'message'), [
    (change_value, "^the files of set 'tiny' have changed while the model was trained"),
    (remove_file, r"^set 'tiny' cannot be read any more \('.*missing_0.6.npz' masks 'text', which the set lacks .*\)"),
    (remove_mask, "^the files of set 'tiny' have changed while the model was trained"),
    (cut_file, r"^set 'tiny' cannot be read any more \(cannot read '.*text_feat.npy'.*\)")])
def test_a_set_that_changes_in_training(root: Path, tmp_path: Path, change: Callable[[Path], None],
                                        message: str) -> None:
    expected = carry_out(make_run(root), tmp_path / 'undisturbed')
    before = {file: file.read_bytes() for file in (root / 'tiny').iterdir()}
    message += r', so what the model has generated is not compared .* give --resume for that$'
    with pytest.warns(UserWarning, match=message) as warned:
        run_experiment(make_run(root), Watched(tmp_path / 'run', lambda: change(root / 'tiny')))
    assert '\n' not in str(warned[0].message)
    measured = timeless(json.loads((tmp_path / 'run' / 'metrics.json').read_text()))
    assert measured == {name: value for name, value in expected.items() if name != 'generation'}
    for file, content in before.items():
        file.write_bytes(content)
    assert carry_out(make_run(root), tmp_path / 'run', resume=True) == expected
    assert (tmp_path / 'run' / 'metrics.jsonl').read_text().count('\n') == 3


def test_where_no_features_are_read_again_the_set_may_change(root: Path, tmp_path: Path) -> None:
    run = make_run(root, model='vbpr', settings=SHORT)
    expected = carry_out(run, tmp_path / 'undisturbed')
    metrics = run_experiment(run, Watched(tmp_path / 'run', lambda: change_value(root / 'tiny')))
    assert timeless(json.loads(json.dumps(metrics))) == expected


def test_an_interrupted_run_is_measured(root: Path, tmp_path: Path, loads: Loads) -> None:
    alive = []

    def interrupt() -> None:
        alive.append(loads.alive())
        signal.raise_signal(signal.SIGINT)

    metrics = run_experiment(make_run(root, compare=('vbpr', )), Watched(tmp_path / 'run', interrupt))
    assert (metrics['interrupted'], metrics['epochs']) == (True, 1)
    assert metrics['generation']
    assert (alive, loads.count) == ([0], 2)


@pytest.mark.filterwarnings('always')
def test_a_set_that_is_read_again_warns_once(root: Path, recwarn: pytest.WarningsRecorder) -> None:
    file = root / 'tiny' / 'tiny.inter'
    lines = file.read_text().splitlines()
    file.write_text('\n'.join([*lines, lines[1]]) + '\n')
    run = make_run(root)
    expected = experiment.describe(load_data(run), run)['data']['hash']
    assert [str(warning.message) for warning in recwarn if 'repeat' in str(warning.message)]
    recwarn.clear()
    load_again(run, expected)
    assert not recwarn.list
    with pytest.raises(UserError, match='have changed'):
        load_again(replace(run, missing_ratio=0.2), expected)
