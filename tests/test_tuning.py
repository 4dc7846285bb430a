"""Tests of dgmrec_pyg.tuning."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import signal
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from small_set import write_small_set

from dgmrec_pyg.config import TrainingConfig, load_preset, preset_names
from dgmrec_pyg.errors import UserError, install_hint
from dgmrec_pyg.experiment import resolve_settings
from dgmrec_pyg.loading import RunSettings
from dgmrec_pyg.nn import MODELS
from dgmrec_pyg.settings_file import read_settings
from dgmrec_pyg.tuning import SEARCH_SPACES, Range, TuningSettings, describe_spaces, tune
from dgmrec_pyg.tuning.study import UNPRUNED_EPOCHS, UNPRUNED_TRIALS, ModelStudy, Report, Trial

pytest.importorskip('optuna')

SPACE = {'rate': Range(1e-4, 1.0, log=True), 'layers': Range(1, 4), 'weight': (0.0, 0.5)}
START = {'rate': 0.01, 'layers': 2, 'weight': 0.5}
QUICK = ('hidden_channels=8', 'epochs=3', 'batch_size=128')


def quality(drawn: dict[str, Any], report: Report) -> tuple[float, int]:
    return -(drawn['rate'] - 0.2) ** 2 - 0.01 * drawn['layers'] - 0.1 * drawn['weight'], 7


def make_study(folder: Path, model: str = 'lightgcn', seed: int = 0, **made_of: Any) -> ModelStudy:
    return ModelStudy(folder / 'tuning.db', model, SPACE, START, {'data': 'abc', **made_of}, seed)


def timeless(trials: list[Trial]) -> list[tuple[Any, ...]]:
    return [(one.number, one.state, one.value, one.epoch, one.settings, one.error) for one in trials]


# Search spaces ########################################################################################################


def test_every_model_has_a_search_space() -> None:
    assert list(SEARCH_SPACES) == list(MODELS)


@pytest.mark.parametrize('name', MODELS)
def test_search_spaces_fit_the_settings(name: str) -> None:
    config, training = MODELS[name].config_class(), TrainingConfig(**MODELS[name].training_defaults)
    for setting, domain in SEARCH_SPACES[name].items():
        owner = config if setting in {field.name for field in fields(config)} else training
        assert getattr(owner, setting) in domain, f'{setting} as it is lies outside'
        for value in (domain.low, domain.high) if isinstance(domain, Range) else domain:
            owner.replace(**{setting: value})  # Raises what does not fit.
        if isinstance(domain, Range):
            assert domain.low < domain.high
            assert domain.whole == isinstance(getattr(owner, setting), int)
            assert domain.low > 0 or not domain.log


@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('kind', ['default', 'reference'])
def test_search_spaces_hold_the_presets(kind: str, model: str) -> None:
    for name in preset_names(kind, model):
        preset = load_preset(kind, name, model)
        found = {**preset['model'], **preset['training']}
        # Zero, which turns a term off, is on no logarithmic scale.
        assert [setting for setting, domain in SEARCH_SPACES[model].items()
                if setting in found and found[setting] not in domain and found[setting] != 0] == []


# Trials ###############################################################################################################


def test_the_first_trial_has_the_settings_as_they_are(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    first, second = (study.run_trial(quality) for _ in range(2))
    assert (first.number, first.settings, first.epoch, first.state) == (1, START, 7, 'done')
    assert second.settings != START
    assert 1e-4 <= second.settings['rate'] <= 1.0
    assert second.settings['layers'] in (1, 2, 3, 4)
    assert second.settings['weight'] in (0.0, 0.5)


def test_the_first_trial_leaves_what_lies_outside_as_it_is(tmp_path: Path) -> None:
    study = ModelStudy(tmp_path / 'tuning.db', 'bprmf', SPACE, {**START, 'rate': 0.0}, {}, 0)
    first, second = (study.run_trial(lambda drawn, report: (0.1, 1)) for _ in range(2))
    assert first.settings == {'layers': 2, 'weight': 0.5}
    assert second.settings.keys() == SPACE.keys()


def test_a_search_that_was_stopped_finds_the_same(tmp_path: Path) -> None:
    (tmp_path / 'a').mkdir()
    (tmp_path / 'b').mkdir()
    whole = make_study(tmp_path / 'a')
    for _ in range(12):  # TPE draws by chance alone at first.
        whole.run_trial(quality)

    def interrupted(drawn: dict[str, Any], report: Report) -> tuple[float, int]:
        report(1, 0.5)
        raise KeyboardInterrupt

    for number in range(12):
        stopped = make_study(tmp_path / 'b')
        if number in (0, 3, 11):
            with pytest.raises(KeyboardInterrupt):
                stopped.run_trial(interrupted)
            assert len(stopped.trials()) == number
        make_study(tmp_path / 'b').run_trial(quality)
    assert timeless(make_study(tmp_path / 'b').trials()) == timeless(whole.trials())
    assert make_study(tmp_path / 'b').best() is not None


def test_other_seeds_draw_other_settings(tmp_path: Path) -> None:
    drawn = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        study = make_study(tmp_path / str(seed), seed=seed)
        drawn.append([study.run_trial(quality).settings for _ in range(2)][1])
    assert drawn[0] != drawn[1]


def test_the_best_trial_is_the_earliest_of_equals(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    values = iter([0.1, 0.3, 0.3, 0.2])
    for _ in range(4):
        study.run_trial(lambda drawn, report: (next(values), 1))
    best = study.best()
    assert best is not None
    assert (best.number, best.value) == (2, 0.3)


def test_a_trial_that_fails_is_on_record_and_the_rest_goes_on(tmp_path: Path) -> None:
    study = make_study(tmp_path)

    def objective(drawn: dict[str, Any], report: Report) -> tuple[float, int]:
        report(4, 0.9)
        if len(study.trials()) == 1:
            raise UserError('the loss is not finite')
        return 0.1, 5

    for _ in range(3):
        study.run_trial(objective)
    assert [(one.state, one.epoch, one.error) for one in study.trials()] == [
        ('done', 5, ''), ('failed', 4, 'the loss is not finite'), ('done', 5, '')]
    best = study.best()
    assert best is not None
    assert best.number == 1


def test_a_trial_behind_the_median_is_given_up(tmp_path: Path) -> None:
    study = make_study(tmp_path)

    def objective(level: float) -> Any:
        def train(drawn: dict[str, Any], report: Report) -> tuple[float, int]:
            for epoch in range(1, 13):
                report(epoch, level)
            return level, 12
        return train

    for level in range(UNPRUNED_TRIALS):
        assert study.run_trial(objective(0.5 - 0.01 * level)).state == 'done'
    worse, better = study.run_trial(objective(0.1)), study.run_trial(objective(0.6))
    assert (worse.state, worse.epoch, worse.value) == ('pruned', UNPRUNED_EPOCHS, None)
    assert (better.state, better.epoch) == ('done', 12)


def test_models_share_a_file_and_nothing_else(tmp_path: Path) -> None:
    one, other = make_study(tmp_path), make_study(tmp_path, 'bprmf')
    one.run_trial(quality)
    assert (len(one.trials()), len(other.trials())) == (1, 0)


def test_trials_of_something_else_are_not_gone_on_with(tmp_path: Path) -> None:
    make_study(tmp_path, training={'epochs': 3})
    make_study(tmp_path, training={'epochs': 3})
    with pytest.raises(UserError, match=r"were made with training \{'epochs': 3\}, now it is \{'epochs': 4\}"):
        make_study(tmp_path, training={'epochs': 4})


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / 'tuning.db').write_bytes(b'no database' * 99)
    with pytest.raises(UserError, match=r"trials in '.*tuning.db' cannot be read \(DatabaseError"):
        make_study(tmp_path)


@pytest.mark.parametrize('name', ['a b', '100%41', 'a#b', 'a?b'])
def test_names_of_folders(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    if '?' in name or '%' in name:
        with pytest.raises(UserError, match='has a question mark or a percent sign'):
            make_study(tmp_path / name)
        assert list((tmp_path / name).iterdir()) == []
    else:
        make_study(tmp_path / name)
        assert (tmp_path / name / 'tuning.db').is_file()


@pytest.mark.parametrize(('library', 'option'), [('optuna', '--tune'), ('tensorboard', '--tensorboard')])
def test_libraries_are_asked_for_where_they_are_missing(library: str, option: str, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == library else found(name))
    with pytest.raises(UserError, match=f'^{option} needs {library}: {re.escape(install_hint(library))}$'):
        TuningSettings(3, tmp_path, tensorboard=True)


# Whole searches #######################################################################################################


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the set 'tiny' under 'data' in the current folder."""
    monkeypatch.chdir(tmp_path)
    return write_small_set(tmp_path / 'data' / 'tiny')


def make_run(**values: Any) -> RunSettings:
    return RunSettings(**{'dataset': 'tiny', 'model': 'bprmf', 'settings': QUICK, **values})


def rows(path: str) -> list[dict[str, str]]:
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def test_tune_and_once_more(folder: Path) -> None:
    run, lines = make_run(model='lightgcn', compare=('itemknn', 'popularity')), []
    shown = tune(run, TuningSettings(3, Path('out')), lines.append)
    trials, results = rows('out/trials.csv'), rows('out/results.csv')
    assert [(one['model'], one['trial']) for one in trials] == [
        (model, str(number)) for model in ('lightgcn', 'itemknn') for number in (1, 2, 3)]
    best = max(trials[:3], key=lambda one: float(one['recall@20']))
    metrics = json.loads(Path(f"out/lightgcn-trial-{best['trial']}/metrics.json").read_text())
    assert metrics['val']['recall@20'] == float(best['recall@20'])  # The same training once more.
    assert [one['model'] for one in results] == ['lightgcn', 'itemknn', 'popularity']
    assert results[0]['test recall@20'] == f"{metrics['test']['recall@20']:.4f}"
    assert (results[0]['trials'], results[0]['untuned']) == ('3', f"{float(trials[0]['recall@20']):.4f}")
    assert (results[2]['trials'], results[2]['untuned']) == ('0', '-')
    assert [line.split()[0] for line in shown.splitlines()[2:]] == ['lightgcn', 'itemknn', 'popularity']

    before = Path('out/trials.csv').read_bytes()
    lines.clear()
    again = tune(run, TuningSettings(3, Path('out')), lines.append)
    assert again == shown
    assert Path('out/trials.csv').read_bytes() == before
    assert not any(', trial ' in line for line in lines)


def test_best_settings_are_read_back(folder: Path) -> None:
    tune(make_run(), TuningSettings(2, Path('out')))
    trials = rows('out/trials.csv')
    best = max(trials, key=lambda one: float(one['recall@20']))
    config, training = resolve_settings(make_run(settings=tuple(read_settings('out/bprmf.json', 'bprmf'))))
    assert (training.learning_rate, training.epochs) == (float(best['learning_rate']), 3)
    assert config.to_dict()['embedding_reg_weight'] == float(best['embedding_reg_weight'])
    assert config.to_dict()['hidden_channels'] == 8


def test_trials_do_not_see_the_test_split(folder: Path) -> None:
    tune(make_run(), TuningSettings(2, Path('a')))
    header, *lines = (folder / 'tiny.inter').read_text().splitlines()
    test = [line for line in lines if line.endswith('\t2')]
    (folder / 'tiny.inter').write_text('\n'.join([header, *(line for line in lines if line not in test[::2])]) + '\n')
    tune(make_run(), TuningSettings(2, Path('b')))
    without_seconds = [[{**one, 'seconds': ''} for one in rows(f'{name}/trials.csv')] for name in 'ab']
    assert without_seconds[0] == without_seconds[1]
    assert rows('a/results.csv')[0]['test recall@20'] != rows('b/results.csv')[0]['test recall@20']


def test_what_is_said_fits_a_terminal(folder: Path) -> None:
    said: list[str] = []
    tune(make_run(), TuningSettings(2, Path('out')), said.append)
    trials = [line for line in said if ', trial ' in line]
    assert [line.split(': ')[0] for line in trials] == ['bprmf, trial 1 of 2', 'bprmf, trial 2 of 2']
    [best] = [line for line in said if 'training with the settings' in line]
    first, *settings = best.splitlines()
    drawn = {one.split('=')[0]: float(one.split('=')[1]) for line in settings for one in line.split()}
    [row] = [row for row in rows('out/trials.csv') if first.endswith(f" trial {row['trial']}")]
    assert drawn == {name: pytest.approx(float(row[name]), rel=1e-3) for name in SEARCH_SPACES['bprmf']}
    assert max(map(len, [*trials, *best.splitlines()])) <= 90


def test_what_is_given_is_not_searched(folder: Path) -> None:
    run = make_run(settings=(*QUICK, 'learning_rate=0.003', 'embedding_reg_weight=0.5'), compare=('lightgcn',))
    found = [line.split()[:3] for line in describe_spaces(run).splitlines()[2:]]
    assert found == [['bprmf', 'nothing'], ['lightgcn', 'num_layers', '3'],
                     ['lightgcn', 'embedding_reg_weight', '0.0001']]


def test_ctrl_c_keeps_what_is_finished(folder: Path) -> None:
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if ', trial 2 of 3' in line:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        tune(make_run(), TuningSettings(3, Path('out')), say)
    assert lines[-1] == 'stopped after 2 of 3 trials of bprmf; the same command goes on'
    stopped = rows('out/trials.csv')
    assert [one['trial'] for one in stopped] == ['1', '2']
    tune(make_run(), TuningSettings(3, Path('out')), lines.append)
    assert rows('out/trials.csv')[:2] == stopped
    assert len(rows('out/trials.csv')) == 3


def test_ctrl_c_in_training_makes_the_trial_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_epoch = MODELS['bprmf'].start_epoch

    def interrupted(model: Any, epoch: int) -> None:
        start_epoch(model, epoch)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(MODELS['bprmf'], 'start_epoch', interrupted)
        with pytest.raises(KeyboardInterrupt):
            tune(make_run(), TuningSettings(2, Path('out')))
    assert rows('out/trials.csv') == []
    tune(make_run(), TuningSettings(2, Path('out')))
    tune(make_run(), TuningSettings(2, Path('whole')))
    assert [one['learning_rate'] for one in rows('out/trials.csv')] == [
        one['learning_rate'] for one in rows('whole/trials.csv')]


def test_a_loss_that_is_not_finite_is_a_failed_trial(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SEARCH_SPACES, 'bprmf', {'learning_rate': (0.001, 1e30)})
    tune(make_run(), TuningSettings(4, Path('out')))
    states = {(float(one['learning_rate']), one['state']) for one in rows('out/trials.csv')}
    assert states == {(0.001, 'done'), (1e30, 'failed')}
    assert all(('not finite' in one['error']) == (one['state'] == 'failed') for one in rows('out/trials.csv'))
    assert rows('out/results.csv')[0]['failed'] == str(
        sum(one['state'] == 'failed' for one in rows('out/trials.csv')))
    monkeypatch.undo()
    monkeypatch.chdir(folder.parent.parent)
    with pytest.raises(UserError, match=r'all 2 trials of bprmf failed \(first: .* not finite'):
        tune(make_run(settings=(*QUICK, 'learning_rate=1e30')), TuningSettings(2, Path('none')))


@pytest.mark.parametrize(('values', 'number', 'message'), [
    ({}, 0, r'--tune takes the number of trials, at least 1 \(got 0\)'),
    ({'model': 'lightgnc'}, 2, "did you mean 'lightgcn'?"),
    ({'settings': ('knn_k=3',)}, 2, "unknown setting 'knn_k'"),
    ({'dataset': 'tin'}, 2, "there is no set 'tin'"),
])
def test_bad_arguments_leave_nothing(values: dict[str, Any], number: int, message: str, folder: Path) -> None:
    with pytest.raises(UserError, match=message):
        tune(make_run(**values), TuningSettings(number, Path('out')))
    assert not Path('out').exists()


def test_a_folder_of_something_else(folder: Path) -> None:
    with pytest.raises(UserError, match=r"folder 'data' is not empty and holds no tuning\.db"):
        TuningSettings(2, Path('data'))
