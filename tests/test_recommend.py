"""Tests of dgmrec_pyg.recommend: the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_set import SIZES

from dgmrec_pyg.inference import load_run
from dgmrec_pyg.recommend import build_parser, main

Output = pytest.CaptureFixture[str]


def lines(path: Path, *ids: str) -> str:
    path.write_text('\n'.join(ids) + '\n', encoding='utf-8')
    return str(path)


def test_a_table_on_the_screen(finished: Path, capsys: Output) -> None:
    assert main(['--run', str(finished), '--users', 'u003', 'u001', '--k', '2']) == 0
    shown, errors = capsys.readouterr()
    frame = load_run(finished).recommend(['u003', 'u001'], k=2)
    rows = [line.split() for line in shown.splitlines()]
    assert rows[0] == ['user', 'rank', 'item', 'score', 'name']
    assert [row[0] for row in rows[2:]] == ['u003', '2', 'u001', '2']
    assert [row[-4] for row in rows[2:]] == [f'{score:.4f}' for score in frame['score']]
    assert errors == ''


def test_files_in_and_out(finished: Path, tmp_path: Path, capsys: Output) -> None:
    users, candidates = lines(tmp_path / 'users.txt', 'u005', 'u006'), lines(tmp_path / 'c.txt', 'i001', 'i002', 'i003')
    output = tmp_path / 'out.jsonl'
    assert main(['--run', str(finished), '--users-file', users, '--candidates', candidates, '--include-seen',
                 '--output', str(output)]) == 0
    rows = [json.loads(line) for line in output.read_text(encoding='utf-8').splitlines()]
    expected = load_run(finished).recommend(['u005', 'u006'], exclude_seen=False, candidates=['i001', 'i002', 'i003'])
    assert [(row['user'], row['rank'], row['item'], row['name']) for row in rows] == list(
        expected.drop(columns='score').itertuples(index=False, name=None))
    assert capsys.readouterr().out == f'written to {output}: 6 recommendations\n'


def test_all_users(finished: Path, tmp_path: Path) -> None:
    assert main(['--run', str(finished), '--k', '3', '--output', str(tmp_path / 'out.csv')]) == 0
    written = pd.read_csv(tmp_path / 'out.csv')
    assert written['item'].tolist() == load_run(finished).recommend(k=3)['item'].tolist()


@pytest.mark.parametrize('from_file', [True, False])
def test_for_a_list_of_items(from_file: bool, finished: Path, tmp_path: Path, capsys: Output) -> None:
    given = ['--items-file', lines(tmp_path / 'i.txt', 'i003', 'i004')] if from_file else ['--items', 'i003', 'i004']
    assert main(['--run', str(finished), *given, '--k', '4']) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1] for row in rows] == load_run(finished).recommend_for_items(['i003', 'i004'], k=4)['item'].tolist()


def test_new_items(finished: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / 'new.npz', id=['fresh'], image=np.ones((1, SIZES['image'])))
    assert main(['--run', str(finished), '--k', '31', '--new-items', str(tmp_path / 'new.npz'),
                 '--output', str(tmp_path / 'out.csv')]) == 0
    assert (pd.read_csv(tmp_path / 'out.csv')['item'] == 'fresh').sum() == 40


def test_new_items_without_ids_go_by_their_rows(finished: Path, tmp_path: Path, capsys: Output) -> None:
    np.savez(tmp_path / 'new.npz', image=np.ones((3, SIZES['image'])))
    given = ['--run', str(finished), '--new-items', str(tmp_path / 'new.npz'), '--k', '1', '--who-wants']
    assert main([*given, '030']) == 2
    assert "its 30 items have ids such as 'i000'; new items: 'new-0' to 'new-2'" in capsys.readouterr().err
    assert main([*given, 'new-0', 'new-2']) == 0
    assert 'new-0, new-1' in ' '.join(build_parser().format_help().split())


def users_up_to(number: int) -> list[str]:
    return [f'u{user:03d}' for user in range(number)]


def test_who_wants_some_items(finished: Path, tmp_path: Path, capsys: Output) -> None:
    users = lines(tmp_path / 'users.txt', *users_up_to(20))
    assert main(['--run', str(finished), '--who-wants', 'i003', 'Item no. 5', 'i003', '--k', '3', '--candidates', users
                 ]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ['item', 'rank', 'user', 'score', 'name']
    expected = load_run(finished).recommend_users(['i003', 'i005'], k=3, candidates=users_up_to(20))
    assert [row[0] for row in rows[2:] if len(row) == 7] == ['i003', 'i005']
    assert [row[-5] for row in rows[2:]] == expected['user'].tolist()


def test_who_wants_new_items(finished: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / 'new.npz', id=['fresh', 'bright'], text=np.eye(2, SIZES['text']))
    given = ['--run', str(finished), '--new-items', str(tmp_path / 'new.npz'), '--output', str(tmp_path / 'out.csv')]
    assert main([*given, '--k', '5', '--who-wants']) == 0
    everyone = pd.read_csv(tmp_path / 'out.csv', keep_default_na=False)
    assert everyone['item'].tolist() == ['fresh'] * 5 + ['bright'] * 5
    assert main([*given, '--k', '5', '--who-wants', 'bright', 'i001']) == 0
    some = pd.read_csv(tmp_path / 'out.csv', keep_default_na=False)
    assert some['user'].tolist()[:5] == everyone['user'].tolist()[5:]
    assert some['name'].tolist() == [''] * 5 + ['Item no. 1'] * 5


@pytest.mark.parametrize(('arguments', 'message'), [
    ([], 'all users are asked for; give --output FILE, or some --users'),
    (['--users', 'u001', '--items', 'i001'], 'argument --items: not allowed with argument --users (see --help)'),
    (['--items', 'i001', '--new-items', 'x.npz'], '--new-items are ranked for users of the set; leave out --items'),
    (['--who-wants'], '--who-wants needs ids of items, or --new-items FILE'),
    (['--who-wants', 'i1'], "has no item 'i1'"),
    (['--users', 'u1', '--output', 'a.xls'], "'a.xls' does not say what kind of table to write (known endings: .csv"),
    (['--users', 'nobody'], "has no user 'nobody'; its 40 users have ids such as 'u000'"),
    (['--users-file', 'absent.txt'], "cannot read 'absent.txt': No such file or directory"),
    (['--users', 'u001', '--k', '0'], 'k must be at least 1 (got 0)'),
    (['--user', 'u001'], 'unrecognized arguments: --user u001'),
])
def test_errors_are_one_line(arguments: list[str], message: str, finished: Path, capsys: Output) -> None:
    assert main(['--run', str(finished), *arguments]) == 2
    shown, errors = capsys.readouterr()
    assert shown == ''
    assert errors.startswith('error: ')
    assert message in errors
    assert errors.count('\n') == 1


@pytest.mark.filterwarnings('default')
def test_notes_on_odd_questions(finished: Path, capsys: Output) -> None:
    assert main(['--run', str(finished), '--users', 'u003', 'u001', 'u003', '--k', '31']) == 0
    shown, errors = capsys.readouterr()
    assert [line.split()[0] for line in shown.splitlines() if line.startswith('u0')] == ['u003', 'u001']
    assert errors.splitlines() == ['warning: --k is 31, but there are 30 items; all that are left are ranked',
                                   'warning: some users are given more than once; each is shown once']


def test_no_run(tmp_path: Path, capsys: Output) -> None:
    assert main(['--run', str(tmp_path), '--users', '1']) == 2
    assert 'holds no run (config.json is not there)' in capsys.readouterr().err
