"""Tests of dgmrec_pyg.run: the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_set import NUM_ITEMS, SIZES, write_masks, write_small_set

from dgmrec_pyg.command_line import show_warning
from dgmrec_pyg.config import DGMRecConfig, TrainingConfig, load_preset, parse_settings, preset_names
from dgmrec_pyg.loading import RunSettings
from dgmrec_pyg.nn import MODELS
from dgmrec_pyg.run import INTERRUPTED, _new_folder, main
from dgmrec_pyg.run_arguments import MODELS as NAMED
from dgmrec_pyg.transforms.impute_missing import IMPUTERS

REPOSITORY = Path(__file__).resolve().parent.parent
QUICK = ['--epochs', '2', '--set', 'hidden_channels=8', 'knn_k=4']
Output = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the set 'tiny' under 'data' in the current folder."""
    monkeypatch.chdir(tmp_path)
    return write_small_set(tmp_path / 'data' / 'tiny')


def command(*arguments: str) -> list[str]:
    return [sys.executable, '-m', 'dgmrec_pyg.run', *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, 'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1'}


def everything(base: Path) -> dict[str, bytes]:
    return {str(path.relative_to(base)): path.read_bytes() if path.is_file() else b'' for path in base.rglob('*')}


def finished(path: str | Path) -> bool:
    return {file.name for file in Path(path).iterdir()} >= {'config.json', 'metrics.jsonl', 'metrics.json',
                                                            'checkpoint.pt', 'recommendations.csv'}


# Runs that work #######################################################################################################


def test_a_run(folder: Path, capsys: Output) -> None:
    assert main(['--dataset', 'tiny', '--missing-ratio', '0.5', '--output', 'out', *QUICK]) == 0
    shown, errors = capsys.readouterr()
    assert errors == ''
    assert finished('out')
    metrics = json.loads(Path('out/metrics.json').read_text())
    lines = shown.splitlines()
    assert lines[0] == 'tiny: 40 users, 30 items, 240 training / 80 validation / 80 test interactions'
    assert lines[1].startswith('modalities: image 8 (')
    row = next(line for line in lines if line.startswith('dgmrec')).split()
    assert row[1:3] == [f"{metrics['val']['recall@20']:.4f}", f"{metrics['test']['recall@20']:.4f}"]
    assert any(line.startswith('similarity to the true features of hidden items') for line in lines)
    assert lines[-1] == 'written to out'


def test_default_output_is_a_new_folder(folder: Path) -> None:
    assert main(['--dataset', str(folder), '--model', 'lightgcn', '--epochs', '1', '--quiet']) == 0
    [made] = Path('runs').iterdir()
    name, model, day, clock = made.name.split('-')
    assert (name, model) == ('tiny', 'lightgcn')
    assert time.strptime(day + clock, '%Y%m%d%H%M%S')
    assert finished(made)


def test_quiet_prints_nothing(folder: Path, capfd: Output) -> None:
    with open(folder / 'tiny.inter', 'a', encoding='utf-8') as file:
        file.write('0\t1\t0\n0\t1\t0\n')
    assert main(['--dataset', 'tiny', '--quiet', '--output', 'out', *QUICK]) == 0
    assert capfd.readouterr() == ('', '')
    assert finished('out')


def test_dry_run_writes_nothing(folder: Path, capsys: Output) -> None:
    before = everything(folder.parent.parent)
    assert main(['--dataset', 'tiny', '--dry-run', '--set', 'knn_k=7', '--batch-size', '99']) == 0
    assert everything(folder.parent.parent) == before
    shown, errors = capsys.readouterr()
    assert errors == ''
    assert '  knn_k = 7\n' in shown
    assert '  batch_size = 99\n' in shown
    assert 'tiny: 40 users' in shown


@pytest.mark.parametrize('how', [['--dry-run'], ['--output', 'out', *QUICK]], ids=['dry run', 'run'])
def test_larger_batches_than_asked_for_are_told(folder: Path, capsys: Output, how: list[str]) -> None:
    arguments = ['--dataset', 'tiny', *how, '--batch-size', '8']
    line = 'interactions, so that an epoch has at most 2 steps; --set max_steps=0 for batches of 8\n'
    assert main([*arguments, '--set', 'max_steps=2']) == 0
    assert line in capsys.readouterr().out


def test_the_synthetic_set_needs_no_files_and_compares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: Output) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(['--epochs', '1', '--output', 'out']) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    assert [name for name in rows if name in ('dgmrec', 'popularity', 'lightgcn')] == ['dgmrec', 'popularity',
                                                                                      'lightgcn']
    config = json.loads(Path('out/config.json').read_text())
    assert config['run']['compare'] == ['popularity', 'lightgcn']
    assert [path.name for path in tmp_path.iterdir()] == ['out']


@pytest.mark.parametrize(('arguments', 'compared'), [
    (['--compare', 'lightgcn', 'popularity'], ['lightgcn', 'popularity']),
    (['--compare'], []),
    ([], []),
    (['--compare', 'dgmrec'], []),  # it is the run's model
    (['--compare', 'popularity', 'dgmrec', 'popularity'], ['popularity']),
])
def test_compare(folder: Path, arguments: list[str], compared: list[str]) -> None:
    assert main(['--dataset', 'tiny', '--output', 'out', '--quiet', *QUICK, *arguments]) == 0
    assert list(json.loads(Path('out/metrics.json').read_text()).get('compare', {})) == compared


def test_compare_without_a_name_turns_it_off_on_the_synthetic_set(folder: Path, capsys: Output) -> None:
    assert main(['--dry-run', '--compare']) == 0
    assert main(['--epochs', '1', '--model', 'popularity', '--compare', '--quiet', '--output', 'out']) == 0
    assert 'compare' not in json.loads(Path('out/metrics.json').read_text())


def test_home_in_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', str(folder.parent.parent))
    write_masks(folder, 0.5)
    (folder / 'missing_0.5.npz').rename('mask.npz')
    arguments = ['--dataset', 'tiny', '--root=~/data', '--missing-file=~/mask.npz', '--output=~/out', '--quiet']
    assert main([*arguments, *QUICK]) == 0
    assert finished('out')
    assert json.loads(Path('out/config.json').read_text())['data']['missing'] == {'image': 10, 'text': 10}


# Resuming #############################################################################################################


def test_resume_goes_on_with_the_same_arguments(folder: Path, capsys: Output) -> None:
    common = ['--dataset', 'tiny', '--seed', '3', '--missing-ratio', '0.5', '--set', 'hidden_channels=8', 'knn_k=4']
    assert main([*common, '--epochs', '4', '--output', 'whole', '--quiet']) == 0
    assert main([*common, '--epochs', '2', '--output', 'out', '--quiet']) == 0
    assert main(['--resume', '--output', 'out', '--epochs', '4']) == 0
    assert 'going on after epoch 2' in capsys.readouterr().out.splitlines()
    assert Path('out/recommendations.csv').read_bytes() == Path('whole/recommendations.csv').read_bytes()
    assert json.loads(Path('out/config.json').read_text())['run']['seed'] == 3
    assert main(['--resume', '--output', 'out']) == 0
    assert 'nothing was left to train' in capsys.readouterr().out
    assert main(['--resume', '--output', 'out', '--epochs', '3']) == 2
    assert 'has trained 4 epochs already; give --epochs 4 or more' in capsys.readouterr().err
    assert json.loads(Path('out/config.json').read_text())['training']['epochs'] == 4
    assert main(['--resume', '--output', 'out', '--quiet', '--compare', 'popularity']) == 0
    assert list(json.loads(Path('out/metrics.json').read_text())['compare']) == ['popularity']


def test_a_set_may_have_moved(folder: Path) -> None:
    assert main(['--dataset', 'tiny', '--output', 'out', '--quiet', *QUICK]) == 0
    folder.parent.rename('elsewhere')
    assert main(['--resume', '--output', 'out', '--quiet', '--root', 'elsewhere']) == 0


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--seed', '0'], '--seed is 0, but the run to resume has 3; leave it out or start a new run'),
    (['--model', 'lightgcn'], "--model is 'lightgcn', but the run to resume has 'dgmrec'"),
    (['--no-missing'], '--no-missing is True, but the run to resume has False'),
    (['--imputer', 'heat'], "--imputer is 'heat', but the run to resume has None"),
    (['--set', 'knn_k=9'], 'made with knn_k 4 (model), now it is 9'),
    (['--batch-size', '9'], 'made with batch_size 2048 (training), now it is 9'),
])
def test_resume_with_other_settings(folder: Path, capsys: Output, arguments: list[str], message: str) -> None:
    assert main(['--dataset', 'tiny', '--seed', '3', '--output', 'out', '--quiet', *QUICK]) == 0
    before = everything(Path())
    assert main(['--resume', '--output', 'out', *arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith('error: ')
    assert errors.count('\n') == 1
    assert message in errors
    assert everything(Path()) == before


Damage = Callable[[dict[str, Any]], object]
DAMAGED_CONFIG: dict[str, Damage] = {
    'settings are a number': lambda config: config['run'].update(settings=5),
    'settings are numbers': lambda config: config['run'].update(settings=[5]),
    'no text for a set': lambda config: config['run'].update(dataset=5),
    'no number for a seed': lambda config: config['run'].update(seed=None),
    'unknown device': lambda config: config['run'].update(device='gpu'),
    'unknown preset': lambda config: config['run'].update(preset='paper'),
    'unknown name': lambda config: config['run'].update(datasett='tiny'),
    'no part': lambda config: config.pop('model'),
}


@pytest.mark.parametrize('case', DAMAGED_CONFIG)
def test_resume_with_a_damaged_config(folder: Path, capsys: Output, case: str) -> None:
    assert main(['--dataset', 'tiny', '--output', 'out', '--quiet', '--model', 'popularity']) == 0
    config = json.loads(Path('out/config.json').read_text())
    DAMAGED_CONFIG[case](config)
    Path('out/config.json').write_text(json.dumps(config))
    check_error(['--resume', '--output', 'out'], Path(), "'out/config.json' is damaged (", capsys)


@pytest.mark.parametrize('change', [
    lambda state: [state.pop(key) for key in list(state) if key != 'format'],
    lambda state: state['fit']['records'][1].pop('epoch'),
    lambda state: state['fit'].update(records=[]),
], ids=['no state', 'half a record', 'no records'])
def test_resume_with_a_damaged_checkpoint(folder: Path, capsys: Output, change: Damage) -> None:
    assert main(['--dataset', 'tiny', '--output', 'out', '--quiet', *QUICK]) == 0
    state = torch.load('out/checkpoint.pt', weights_only=True)
    change(state)
    torch.save(state, 'out/checkpoint.pt')
    check_error(['--resume', '--output', 'out', '--epochs', '3'], Path(), 'is damaged or of another model (', capsys)


# Bad input ############################################################################################################


def write_inter(folder: Path, *lines: str, header: str = 'userID\titemID\tx_label') -> None:
    (folder / 'tiny.inter').write_text('\n'.join([header, *lines]) + '\n')


def add_lines(folder: Path, *lines: str) -> None:
    with open(folder / 'tiny.inter', 'a', encoding='utf-8') as file:
        file.write('\n'.join(lines) + '\n')


def keep_labels(folder: Path, *labels: str) -> None:
    lines = (folder / 'tiny.inter').read_text().splitlines()[1:]
    write_inter(folder, *(line for line in lines if line[-1] in labels))


def change_features(folder: Path, change: Callable[[np.ndarray], np.ndarray | None]) -> None:
    path = folder / 'image_feat.npy'
    features = np.load(path)
    changed = change(features)
    np.save(path, features if changed is None else changed)


def put(rows: object, value: float) -> Callable[[np.ndarray], None]:
    def change(features: np.ndarray) -> None:
        features[rows] = value

    return change


Change = Callable[[Path], object]
BAD_FILES: dict[str, tuple[Change, str]] = {
    'no .inter file': (lambda f: (f / 'tiny.inter').unlink(), 'holds no .inter file'),
    'empty .inter file': (lambda f: (f / 'tiny.inter').write_text(''), 'is empty'),
    '.inter without lines': (lambda f: write_inter(f), 'holds no interactions, only the names of columns'),
    'wrong column': (lambda f: write_inter(f, '0\t0\t0', header='user\titemID\tx_label'), "has no column 'userID'"),
    'letters for ids': (lambda f: add_lines(f, 'anna\t1\t0'), "line 402: userID is 'anna'; a whole number from 0"),
    'negative id': (lambda f: add_lines(f, '1\t-1\t0'), "line 402: itemID is '-1'; a whole number from 0"),
    'id out of range': (lambda f: add_lines(f, '1\t30\t0', '1\t31\t0'), "itemID is '30'; 'image_feat.npy' has 30 rows"),
    'unknown label': (lambda f: add_lines(f, '1\t1\t3'), "x_label is '3'"),
    'half a line': (lambda f: add_lines(f, '1\t1'), 'line 402: x_label is empty'),
    'binary file': (lambda f: (f / 'tiny.inter').write_bytes(bytes(range(256))), "tiny.inter' has no column 'userID'"),
    'features with too few rows': (lambda f: change_features(f, lambda x: x[:-1]), 'needs one row per item'),
    'features of one dimension': (lambda f: change_features(f, lambda x: x[:, 0]), 'has shape [30]'),
    'features of text': (lambda f: change_features(f, lambda x: x.astype(str)), 'not numbers'),
    'damaged features': (lambda f: (f / 'image_feat.npy').write_bytes(b'\x93NUMPY'), 'cannot read'),
    'no features': (lambda f: [(f / f'{m}_feat.npy').unlink() for m in SIZES], 'holds no features'),
    'NaN in a row': (lambda f: change_features(f, put((3, 0), np.nan)), 'has NaN beside numbers in row 3 (counted'),
    'infinity in a row': (lambda f: change_features(f, put((3, 0), np.inf)), 'infinite'),
    'NaN throughout': (lambda f: change_features(f, put(slice(None), np.nan)), 'is NaN throughout'),
    'no validation': (lambda f: keep_labels(f, '0', '2'), "set 'tiny' has no validation interactions"),
    'no test': (lambda f: keep_labels(f, '0', '1'), "set 'tiny' has no test interactions"),
    'no training': (lambda f: keep_labels(f, '1', '2'), 'holds no training interactions'),
    'one modality': (lambda f: (f / 'text_feat.npy').unlink(), "DGMRec needs two or more modalities (got ['image'])"),
    'broken mask of the set': (lambda f: (f / 'missing_0.5.npz').write_bytes(b'PK'), 'cannot read the mask file'),
}
BAD_ARGUMENTS: dict[str, tuple[list[str], str]] = {
    'unknown set': (['--dataset', 'tinny'], "there is no set 'tinny' under"),
    'near miss of a set': (['--dataset', 'bany'], "did you mean 'baby'?"),
    'folder that is not there': (['--dataset', 'data/none'], 'there is no folder'),
    'misspelt argument': (['--epoch', '3'], "unrecognized arguments: --epoch 3; did you mean '--epochs'? (see --help)"),
    'misspelt argument with =': (['--sed=3'], "unrecognized arguments: --sed=3; did you mean '--seed'? (see --help)"),
    'argument like no other': (['--xyz'], 'unrecognized arguments: --xyz (see --help)'),
    'no argument': (['more'], 'unrecognized arguments: more (see --help)'),
    'misspelt synthetic set': (['--dataset', 'sythetic'], "there is no set 'sythetic'; did you mean 'synthetic'?"),
    'no trials': (['--tune', '0'], '--tune takes the number of trials, at least 1 (got 0)'),
    'tune and resume': (['--tune', '2', '--resume', '--output', 'out'], 'leave out --resume'),
    'tune and config': (['--tune', '2', '--config', 'a.json'], 'leave out --config'),
    'resume and config': (['--resume', '--output', 'out', '--config', 'a.json'], 'leave out --config'),
    'no such settings': (['--config', 'a.json'], "cannot read 'a.json'"),
    'settings that are none': (['--config', 'data/tiny/tiny.inter'], 'it is no JSON'),
    'unknown shell': (['--print-completion', 'tcsh'], "invalid choice: 'tcsh'"),
    'ratio above 1': (['--missing-ratio', '1.5'], 'from 0 to 1 (got 1.5)'),
    'ratio below 0': (['--missing-ratio', '-0.5'], 'from 0 to 1 (got -0.5)'),
    'ratio in percent': (['--missing-ratio', '60%'], "argument --missing-ratio: invalid float value: '60%'"),
    'ratio nan': (['--missing-ratio', 'nan'], 'from 0 to 1 (got nan)'),
    'two missing flags': (['--missing-ratio', '0.5', '--no-missing'], 'not allowed with argument'),
    'unknown setting': (['--set', 'knn_kk=3'], "unknown setting 'knn_kk' in --set; did you mean 'knn_k'?"),
    'setting of a wrong type': (['--set', 'knn_k=many'], "setting 'knn_k' must be of type int (got 'many')"),
    'setting out of range': (['--set', 'graph_refresh_rate=2'], 'must be between 0 and 1 (got 2.0)'),
    'unknown choice': (['--set', 'imputation=median'], 'must be one of mean, zero'),
    'setting of 400 digits': (['--set', 'learning_rate=1' + '0' * 400], 'takes whole numbers of at most 2147483647'),
    'setting of 5000 digits': (['--set', 'knn_k=' + '1' * 5000], "setting 'knn_k' must be of type int"),
    'batch of 21 digits': (['--batch-size', '1' + '0' * 20], "setting 'batch_size' takes whole numbers of at most"),
    'setting without =': (['--set', 'knn_k'], "--set takes key=value (got 'knn_k')"),
    'no epochs': (['--epochs', '0'], "setting 'epochs' must be greater than 0 (got 0)"),
    'epochs in words': (['--epochs', 'ten'], "argument --epochs: invalid int value: 'ten'"),
    'no batch': (['--batch-size', '0'], "setting 'batch_size' must be greater than 0 (got 0)"),
    'negative seed': (['--seed', '-1'], 'the seed must be from 0 to 4294967295 (got -1)'),
    'output that is not empty': (['--output', 'data'], "folder 'data' is not empty; give another --output, or"),
    'output that is a file': (['--output', 'data/tiny/tiny.inter'], 'is a file; give --output the name of a folder'),
    'output under a file': (['--output', 'data/tiny/tiny.inter/out'], 'cannot make folder'),
    'output without permission': (['--output', '/proc/out'], "cannot make folder '/proc/out'"),
    'unknown model': (['--model', 'lightgnc'], "unknown model 'lightgnc'; did you mean 'lightgcn'?"),
    'unknown model to compare': (['--compare', 'popular'], "unknown model 'popular'; did you mean 'popularity'?"),
    'unknown preset': (['--preset', 'paper'], "argument --preset: invalid choice: 'paper'"),
    'resume without output': (['--resume'], '--resume needs --output'),
    'nothing to resume': (['--resume', '--output', 'none'], 'holds no run to resume'),
    'resume of a folder without a run': (['--resume', '--output', 'data'], 'holds no run to resume'),
    'no such mask file': (['--missing-file', 'none.npz'], "there is no mask file 'none.npz'; give a file"),
    'mask file of another kind': (['--missing-file', 'data/tiny/tiny.inter'], 'is no mask file'),
    'mask file of features': (['--missing-file', 'data/tiny/image_feat.npy'], 'cannot read the mask file'),
    'mask file for the synthetic set': (['--dataset', 'synthetic', '--missing-file', 'a.npz'], 'has no mask files'),
}


def check_error(arguments: list[str], base: Path, message: str, capsys: Output) -> None:
    before = everything(base)
    code = main(arguments)
    shown, errors = capsys.readouterr()
    assert (code, shown, errors.count('\n')) == (2, '', 1)
    assert errors.startswith('error: ')
    assert errors.endswith('\n')
    assert message in errors
    assert everything(base) == before


@pytest.mark.parametrize('case', BAD_FILES)
def test_bad_files(folder: Path, capsys: Output, case: str) -> None:
    change, message = BAD_FILES[case]
    change(folder)
    check_error(['--dataset', 'tiny', *QUICK], folder.parent.parent, message, capsys)


@pytest.mark.parametrize('case', BAD_ARGUMENTS)
def test_bad_arguments(folder: Path, capsys: Output, case: str) -> None:
    arguments, message = BAD_ARGUMENTS[case]
    check_error(['--dataset', 'tiny', *arguments], folder.parent.parent, message, capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is CUDA')
def test_cuda_where_there_is_none(folder: Path, capsys: Output) -> None:
    for extra in ([], ['--dry-run']):
        check_error(['--dataset', 'tiny', '--device', 'cuda', *extra], folder.parent.parent,
                    'PyTorch finds no CUDA device here; use --device cpu or auto', capsys)


def lack_image(folder: Path) -> None:
    np.savez(folder / 'missing_0.5.npz', image=np.ones(NUM_ITEMS, dtype=bool), text=np.arange(NUM_ITEMS) < 5)


ODD_FILES: dict[str, tuple[Change, str]] = {
    'repeated lines': (lambda f: add_lines(f, '0\t1\t0', '0\t1\t0'), 'interactions that repeat an earlier one'),
    'test line that is a training line': (lambda f: add_lines(f, '0\t1\t0', '0\t1\t2'), 'are also training'),
    'constant features': (lambda f: change_features(f, put(slice(None), 0.5)), ''),
    'zero rows': (lambda f: change_features(f, put(slice(3, 9), 0.0)), ''),
    'zeros only': (lambda f: change_features(f, put(slice(None), 0.0)), ''),
    'rows of NaN': (lambda f: change_features(f, put(slice(3, 9), np.nan)), ''),
    'every item lacks one modality': (lack_image, ''),
    'users and items without training lines': (lambda f: add_lines(f, '45\t29\t1', '46\t29\t2', '47\t0\t2'), ''),
}


@pytest.mark.filterwarnings('default')
@pytest.mark.parametrize('case', ODD_FILES)
def test_odd_files_work(folder: Path, capsys: Output, case: str) -> None:
    change, warning = ODD_FILES[case]
    change(folder)
    assert main(['--dataset', 'tiny', '--output', 'out', *QUICK]) == 0
    assert finished('out')
    metrics = json.loads(Path('out/metrics.json').read_text())
    assert 0 < metrics['test']['recall@20'] <= 1
    errors = capsys.readouterr().err
    if not warning:
        assert errors == ''
    else:
        assert all(line.startswith(f"warning: '{folder}") for line in errors.splitlines())
        assert warning in errors


def test_one_modality_serves_models_that_need_none(folder: Path) -> None:
    (folder / 'text_feat.npy').unlink()
    assert main(['--dataset', 'tiny', '--model', 'lightgcn', '--epochs', '2', '--output', 'out', '--quiet']) == 0
    assert finished('out')


def test_presets_are_listed(folder: Path, capsys: Output) -> None:
    before = everything(folder.parent.parent)
    assert main(['--list-presets']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split('  ')[0] == 'preset'
    assert [line.split()[:3] for line in lines if line.startswith(('default', 'reference'))] == [
        [kind, model, name] for kind in ('default', 'reference') for model in MODELS
        for name in [*preset_names(kind, model), *(['others'] if model == 'dgmrec' else [])]]
    text = ' '.join(lines)
    assert ' synthetic  hidden_channels=64 knn_k=20 ranking_loss=bpr ' in text
    given = text.split(' clothing ')[1].split(' reference ')[0].split()
    preset = load_preset('reference', 'clothing')
    training = TrainingConfig.from_dict(MODELS['dgmrec'].training_defaults)
    defaults = DGMRecConfig().to_dict() | training.to_dict()
    assert parse_settings(given, DGMRecConfig(), training) == (
        DGMRecConfig.from_dict(preset['model']), TrainingConfig.from_dict(preset['training']))
    assert len(given) == sum(value != defaults[key] for part in preset.values() for key, value in part.items())
    assert max(map(len, lines)) <= 80
    assert everything(folder.parent.parent) == before


def test_models_are_listed(capsys: Output) -> None:
    assert main(['--list-models']) == 0
    _, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == sorted(MODELS, key=list(NAMED).index)
    assert set(NAMED) == set(MODELS)
    assert max(map(len, rows)) <= 80


# Settings from a file, tuning, logs ###################################################################################


def test_settings_of_a_file_and_of_a_former_run(folder: Path, capsys: Output) -> None:
    Path('own.json').write_text(json.dumps({'model': {'knn_k': 3, 'imputation': 'zero'}, 'training': {'epochs': 1}}))
    arguments = ['--dataset', 'tiny', '--quiet', '--set', 'hidden_channels=8']
    assert main([*arguments, 'knn_k=5', '--config', 'own.json', '--output', 'a']) == 0
    assert main(['--dataset', 'tiny', '--quiet', '--config', 'a/config.json', '--output', 'b']) == 0
    first, second = (json.loads(Path(f'{name}/config.json').read_text()) for name in 'ab')
    assert {name: first['model'][name] for name in ('knn_k', 'imputation', 'hidden_channels')} == {
        'knn_k': 5, 'imputation': 'zero', 'hidden_channels': 8}
    assert first['training']['epochs'] == 1
    assert (second['model'], second['training']) == (first['model'], first['training'])
    assert main(['--resume', '--output', 'b', '--quiet', '--epochs', '2']) == 0
    for content, message in (([], 'holds no settings'), ({'model': 3}, 'holds no settings'),
                             ({'run': {'model': 'bm3'}}, "holds settings of 'bm3', not of 'dgmrec'"),
                             ({'model': {'knn': 3}}, "unknown setting 'knn'"),
                             ({'model': {'knn_k': [3]}}, "setting 'knn_k' must be of type int")):
        Path('own.json').write_text(json.dumps(content))
        check_error(['--dataset', 'tiny', '--config', 'own.json'], folder.parent.parent, message, capsys)


def test_tune(folder: Path, capsys: Output) -> None:
    pytest.importorskip('optuna')
    arguments = ['--dataset', 'tiny', '--model', 'bprmf', '--epochs', '2', '--tune', '2']
    before = everything(folder.parent.parent)
    assert main([*arguments, '--dry-run']) == 0
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()[2:]] == [
        ['bprmf', 'learning_rate', '0.001'], ['bprmf', 'embedding_reg_weight', '0.0001']]
    assert everything(folder.parent.parent) == before
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith('bprmf, trial ') for line in lines) == 2
    assert lines[-1] == ('written to runs/tiny-bprmf-tune; for a run with the best settings: --model bprmf --config '
                         'runs/tiny-bprmf-tune/bprmf.json')
    assert main(['--dataset', 'tiny', '--model', 'bprmf', '--config', 'runs/tiny-bprmf-tune/bprmf.json', '--output',
                 'again', '--quiet']) == 0
    [tuned] = Path('runs/tiny-bprmf-tune').glob('bprmf-trial-*/metrics.json')
    assert json.loads(Path('again/metrics.json').read_text())['test'] == json.loads(tuned.read_text())['test']


def test_tensorboard_goes_on_with_the_run(folder: Path) -> None:
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main(['--dataset', 'tiny', '--output', 'out', '--quiet', '--tensorboard', *QUICK]) == 0
    assert main(['--resume', '--output', 'out', '--quiet', '--epochs', '4']) == 0
    shown = EventAccumulator('out').Reload()
    records = [json.loads(line) for line in Path('out/metrics.jsonl').read_text().splitlines()]
    assert [event.step for event in shown.Scalars('loss')] == [1, 2, 3, 4]
    assert [event.value for event in shown.Scalars('val/recall@20')] == pytest.approx(
        [record['val']['recall@20'] for record in records])
    table = Path('out/epochs.csv').read_text().splitlines()
    assert [line.split(',')[0] for line in table] == ['epoch', '1', '2', '3', '4']


# As a process #########################################################################################################


def test_help_reads_well() -> None:
    answer = subprocess.run(command('--help'), capture_output=True, text=True, check=False,
                            env={**environment(), 'COLUMNS': '80'})
    assert (answer.returncode, answer.stderr) == (0, '')
    assert answer.stdout.startswith('usage: python -m dgmrec_pyg.run [options]\n')
    for flag in ('--dataset', '--root', '--model', '--preset', '--set', '--missing-ratio', '--missing-file',
                 '--no-missing', '--missing-seed', '--imputer', '--new-items', '--compare', '--epochs', '--batch-size',
                 '--config', '--tune', '--tensorboard', '--seed', '--device', '--deterministic', '--output', '--resume',
                 '--quiet', '--dry-run', '--list-models', '--list-presets', '--print-completion'):
        assert f'  {flag}' in answer.stdout
    for name in (*IMPUTERS, *MODELS):
        assert f' {name}' in answer.stdout
    assert max(map(len, answer.stdout.splitlines())) <= 80


def test_a_warning_and_an_error_in_a_process(folder: Path) -> None:
    add_lines(folder, '0\t1\t0', '0\t1\t0')
    (folder / 'text_feat.npy').unlink()
    before = everything(folder.parent.parent)
    answer = subprocess.run(command('--dataset', 'tiny'), capture_output=True, text=True, check=False,
                            env=environment())
    assert (answer.returncode, answer.stdout) == (2, '')
    warning, error = answer.stderr.splitlines()
    assert warning.startswith(f"warning: '{folder / 'tiny.inter'}': dropped 1 interactions")
    assert error.startswith('error: DGMRec needs two or more modalities')
    assert everything(folder.parent.parent) == before


def test_a_warning_shows_control_characters_as_escapes(capsys: Output) -> None:
    show_warning("'a\x1b[2J\u202eb' is\nodd", UserWarning, 'file.py', 1)
    assert capsys.readouterr().err == "warning: 'a\\x1b[2J\\u202eb' is odd\n"


def test_ctrl_c_leaves_a_complete_run(folder: Path) -> None:
    process = subprocess.Popen(command('--dataset', 'tiny', '--epochs', '100000', '--set', 'patience=100000',
                                       'hidden_channels=8', '--output', 'out'),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        epochs = Path('out/metrics.jsonl')
        for _ in range(600):
            if epochs.exists() and epochs.read_text().count('\n') >= 3:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == INTERRUPTED
    assert errors.split('\n') == ['', 'stopping after this epoch (Ctrl-C again: at once)', '']
    assert shown.endswith('written to out\nstopped early; to go on: --resume --output out\n')
    assert finished('out')
    metrics = json.loads(Path('out/metrics.json').read_text())
    assert metrics['interrupted'] is True
    assert metrics['epochs'] == epochs.read_text().count('\n') >= 3


def test_ctrl_c_before_training_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('dgmrec_pyg.experiment.load_data', interrupted)
    assert main(['--dataset', 'tiny', '--output', 'out']) == INTERRUPTED
    assert capsys.readouterr() == ('', 'stopped\n')
    assert not Path('out').exists()


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = []
    for _ in range(4):
        made.append(_new_folder(RunSettings(model='popularity')))
        made[-1].mkdir(parents=True)
    assert all(folder.name.startswith('synthetic-popularity-') for folder in made)
    assert any(folder.name.endswith('-2') for folder in made)
