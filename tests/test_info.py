"""Tests of dgmrec_pyg.info: the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_set import write_masks, write_small_set

from dgmrec_pyg.info import PICTURES, main

Output = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the set 'tiny' under 'data' in the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = write_small_set(tmp_path / 'data' / 'tiny')
    write_masks(folder, 0.4)
    return folder


@pytest.mark.parametrize('dataset', ['tiny', 'data/tiny'])
def test_statistics_of_a_sound_set(dataset: str, folder: Path, capsys: Output) -> None:
    assert main([dataset]) == 0
    shown, errors = capsys.readouterr()
    assert errors == ''
    lines = shown.splitlines()
    assert lines[0] == f'{dataset}: 40 users, 30 items, 240 training / 80 validation / 80 test interactions'
    assert lines[1] == 'modalities: image 8 (27 % missing), text 6 (27 % missing); 40 % of the items lack at least one'
    assert lines[2] == 'density: 20 % of all pairs are training interactions'
    rows = [line.split() for line in lines]
    assert ['of', 'users', '6', '6', '6.0', '6', '0'] in rows
    assert ['nothing', '18', '60.0', '%'] in rows
    assert ['image', '+', 'text', '4', '13.3', '%'] in rows


def test_every_problem_and_exit_code_1(folder: Path, capsys: Output) -> None:
    values = np.load(folder / 'image_feat.npy')
    values[2, 0] = np.inf
    np.save(folder / 'image_feat.npy', values)
    with open(folder / 'tiny.inter', 'a', encoding='utf-8') as file:
        file.write('0\tx\t0\n')
    assert main(['tiny']) == 1
    shown, errors = capsys.readouterr()
    assert errors == ''
    first, *problems, last = shown.splitlines()
    assert first == '2 problems in data/tiny'
    assert [problem.split("' ")[1][:12] for problem in problems] == ['has infinite', 'line 402: it']
    assert last.startswith('repair these and run it again')


def test_what_is_dropped_and_what_surprises(folder: Path, capsys: Output) -> None:
    lines = (folder / 'tiny.inter').read_text().splitlines()
    (folder / 'tiny.inter').write_text('\n'.join([*lines, lines[1], '42\t0\t1']) + '\n')
    (folder / 'text_feat.npy').unlink()
    (folder / 'missing_0.4.npz').unlink()
    values = np.load(folder / 'image_feat.npy')
    values[:3] = 0
    np.save(folder / 'image_feat.npy', values)
    assert main(['tiny']) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith('note: ')]
    assert [note.removeprefix(f"note: '{folder}")[:30] for note in notes] == [
        "/tiny.inter': dropped 1 intera", 'note: 3 users have no training', 'note: dgmrec needs two or more',
        "note: 'image' is zero througho"]


@pytest.mark.parametrize('ending', PICTURES)
def test_a_picture(ending: str, folder: Path, tmp_path: Path, capsys: Output) -> None:
    pytest.importorskip('matplotlib')
    path = tmp_path / f'set{ending}'
    assert main(['tiny', '--plot', str(path)]) == 0
    start = {'.png': b'\x89PNG', '.svg': b'<?xml', '.pdf': b'%PDF'}[ending]
    assert path.read_bytes().startswith(start)
    assert capsys.readouterr().out.endswith(f'written to {path}\n')


def test_the_synthetic_set(capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(['synthetic']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('synthetic: 1,000 users, 800 items')
    assert 'note: dgmrec_pyg.run makes 60 % of the items lack at least one modality, unless it is told otherwise ' \
           '(--missing-ratio, --no-missing)' in lines


@pytest.mark.parametrize(('arguments', 'message'), [
    ([], 'the following arguments are required: SET (see --help)'),
    (['tin'], "no folder 'tin', neither here nor under 'data'; give the folder of a set; did you mean 'tiny'?"),
    (['synthetc'], "give the folder of a set; did you mean 'synthetic'?"),
    (['./absent'], "there is no folder 'absent'"),
    (['tiny', '--plot', 'set.gif'], "'set.gif' is no name of a picture (known endings: .png, .svg, .pdf)"),
    (['tiny', '--plot', 'no/set.png'], "cannot write 'no/set.png': there is no folder"),
])
def test_usage_errors_are_exit_code_2(arguments: list[str], message: str, folder: Path, capsys: Output) -> None:
    assert main(arguments) == 2
    shown, errors = capsys.readouterr()
    assert shown == ''
    assert errors.startswith('error: ')
    assert message in errors
    assert errors.count('\n') == 1
