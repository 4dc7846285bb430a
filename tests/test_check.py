"""Tests of dgmrec_pyg.datasets.check: every problem at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_set import NUM_ITEMS, NUM_USERS, write_masks, write_small_set

from dgmrec_pyg.datasets import read_mmrec
from dgmrec_pyg.datasets.check import find_problems
from dgmrec_pyg.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_small_set(tmp_path / 'tiny')
    write_masks(folder, 0.4)
    return folder


def change_features(name: str, *changes: tuple[object, float]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        values = np.load(folder / name)
        for place, value in changes:
            values[place] = value
        np.save(folder / name, values)
    return change


def change_lines(*changes: tuple[int, str]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        lines = (folder / 'tiny.inter').read_text().splitlines()
        for number, line in changes:
            lines[number - 1] = line
        (folder / 'tiny.inter').write_text('\n'.join(lines) + '\n')
    return change


def without_split(*splits: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        lines = (folder / 'tiny.inter').read_text().splitlines()
        (folder / 'tiny.inter').write_text('\n'.join(
            line for line in lines if line.split('\t')[2] not in map(str, splits)) + '\n')
    return change


SPOILT: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    'infinite': (change_features('image_feat.npy', ((3, 0), np.inf)), ['infinite (or too large for float32) values']),
    'nan': (change_features('text_feat.npy', ((4, 1), np.nan)), ['NaN beside numbers in row 4']),
    'both kinds': (change_features('text_feat.npy', ((4, 1), np.nan), ((5, 0), -np.inf)),
                   ['infinite (or too large for float32) values in row 5', 'NaN beside numbers in row 4']),
    'nan throughout': (change_features('text_feat.npy', (slice(None), np.nan)), ['is NaN throughout']),
    'rows': (lambda folder: np.save(folder / 'text_feat.npy', np.zeros((NUM_ITEMS - 1, 6))),
             ["has 29 rows but 'image_"]),
    'no array': (lambda folder: (folder / 'text_feat.npy').write_text('abc'), ["cannot read '"]),
    'no features': (lambda folder: [path.unlink() for path in folder.glob('*_feat.npy')], ['holds no features']),
    'columns': (change_lines((1, 'user\titemID\tx_label')), ["has no column 'userID'"]),
    'values': (change_lines((2, 'x\t-1\t3')), ["userID is 'x'", "itemID is '-1'", "x_label is '3'; 0 (train)"]),
    'limits': (change_lines((2, '99999\t30\t0')), ["itemID is '30'", "userID is '99999'"]),
    'no training': (without_split(0), ['holds no training interactions']),
    'no other': (without_split(1, 2), ['no validation interactions', 'no test interactions']),
    'no interactions': (without_split(0, 1, 2), ['holds no interactions, only the names of columns']),
    'no file': (lambda folder: (folder / 'tiny.inter').unlink(), ['holds no .inter file']),
    'items.csv': (lambda folder: (folder / 'items.csv').write_text('itemID,raw\n0,a\n0,b\n'), ['stands in an earlier']),
    'users.csv': (lambda folder: (folder / 'users.csv').write_text('user,raw\n0,a\n'), ["has no column 'userID'"]),
    'mask': (lambda folder: np.savez(folder / 'missing_0.7.npz', image=np.zeros(3, dtype=bool)),
             ["the mask of 'image'"]),
    'masks': (lambda folder: [np.savez(folder / f'missing_{ratio}.npz', sound=np.zeros(3, dtype=bool))
                              for ratio in (0.1, 0.2)], ["masks 'sound'", "masks 'sound'"]),
    'folder': (lambda folder: ((folder / 'text_feat.npy').unlink(), (folder / 'text_feat.npy').mkdir()),
               ['it is a folder']),
}


def test_a_sound_set_has_no_problems(folder: Path) -> None:
    assert find_problems(folder) == []


@pytest.mark.parametrize('name', SPOILT)
def test_each_problem_is_found(name: str, folder: Path) -> None:
    spoil, expected = SPOILT[name]
    spoil(folder)
    found = find_problems(folder)
    assert len(found) == len(expected), found
    for words in expected:
        assert any(words in problem for problem in found)
    assert all(f"'{folder}" in problem and '\n' not in problem for problem in found)


@pytest.mark.parametrize('name', [name for name in SPOILT if name not in ('no other', 'mask', 'masks')])
def test_what_reading_refuses_is_among_the_problems(name: str, folder: Path) -> None:
    SPOILT[name][0](folder)
    with pytest.raises(UserError) as refused:
        read_mmrec(folder)
    assert str(refused.value) in find_problems(folder)


def test_all_problems_at_once(folder: Path) -> None:
    names = ['infinite', 'both kinds', 'values', 'items.csv', 'users.csv', 'masks']
    expected = [words for name in names for words in SPOILT[name][1]]
    for name in names:
        SPOILT[name][0](folder)
    found = find_problems(folder)
    assert len(found) == len(expected) == 10
    for words in expected:
        assert any(words in problem for problem in found)


def test_problems_of_lines_come_in_their_order(folder: Path) -> None:
    change_lines((9, 'x\t1\t0'), (4, '1\t30\t0'), (2, '1\t2\t3'), (30, '1\t-1\t0'))(folder)
    assert [problem.split(': ')[0].split()[-1] for problem in find_problems(folder)] == ['2', '4', '9', '30']


def test_the_file_that_differs_from_most_is_the_wrong_one(folder: Path) -> None:
    np.save(folder / 'audio_feat.npy', np.zeros((12, 3)))
    [problem] = find_problems(folder)
    assert "/audio_feat.npy' has 12 rows but 'image_feat.npy' has 30" in problem
    with pytest.raises(UserError) as refused:
        read_mmrec(folder)
    assert str(refused.value) == problem


BAD_LINES = {'negative': '1\t-1\t0', 'no number': 'x\t1\t0', 'short': '1\t1', 'shorter': '1'}


@pytest.mark.parametrize('line', BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_hides_no_other(line: str, folder: Path) -> None:
    others = {10: '1\t2\t7', 11: '99999\t1\t0', 12: '1\t30\t0'}
    change_lines((5, line), *others.items())(folder)
    found = find_problems(folder)
    assert {int(problem.split("' line ")[1].split(': ')[0]) for problem in found} == {5, *others}
    assert sum("line 10: x_label is '7'; " in problem for problem in found) == 1


def test_all_of_a_mask_file_and_of_the_ids(folder: Path) -> None:
    np.savez(folder / 'missing_0.7.npz', image=np.zeros(3, dtype=bool), sound=np.zeros(NUM_ITEMS, dtype=bool),
             text=np.zeros(NUM_ITEMS, dtype=int))
    (folder / 'items.csv').write_text('itemID,raw\n0,a\nx,b\n0,c\n200,d\n')
    found = find_problems(folder)
    for words in ("line 3: itemID is 'x'", "line 4: itemID is '0'; it stands in an earlier", "line 5: itemID is '200'",
                  "the mask of 'image' is bool [3]", "masks 'sound'", "the mask of 'text' is int64"):
        assert sum(words in problem for problem in found) == 1, words
    assert len(found) == 6


def test_all_of_a_released_mask_file(folder: Path) -> None:
    np.save(folder / 'missing_items_0.7.npy', {'x': np.array([1]), 'v': np.array([-1]), 't': np.array([30, 31])})
    key, negative, beyond = find_problems(folder)
    assert "unknown key 'x'" in key
    assert "lists item -1 under 'v'" in negative
    assert "lists item 30 under 't' (2 such)" in beyond


def test_what_rests_on_a_number_of_items_that_is_in_doubt_is_left_out(folder: Path) -> None:
    np.save(folder / 'image_feat.npy', np.zeros((20, 8)))
    (folder / 'items.csv').write_text('itemID,raw\n0,a\n25,b\n0,c\n')
    np.savez(folder / 'missing_0.7.npz', image=np.zeros(NUM_ITEMS, dtype=bool), sound=np.zeros(NUM_ITEMS, dtype=bool))
    rows, repeated, name = find_problems(folder)  # Neither items from 20 on nor masks of 30 items are said to be wrong.
    assert "/text_feat.npy' has 30 rows but 'image_feat.npy' has 20" in rows
    assert "line 4: itemID is '0'; it stands in an earlier line too" in repeated
    assert "masks 'sound'" in name


def test_masks_are_looked_at_where_no_features_can_be_read(folder: Path) -> None:
    for name in ('image', 'text'):
        (folder / f'{name}_feat.npy').write_text('abc')
    np.savez(folder / 'missing_0.7.npz', sound=np.zeros(NUM_ITEMS, dtype=bool))
    assert sum("masks 'sound'" in problem for problem in find_problems(folder)) == 1


def test_a_folder_is_named_as_it_was_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    change_lines((9, 'x\t1\t0'))(folder)
    change_features('image_feat.npy', ((3, 0), np.inf), ((5, 0), np.inf))(folder)
    features, line = find_problems('.')
    assert features.startswith("'image_feat.npy' has infinite (or too large for float32) values in rows 3, 5 (2 such, ")
    assert line.startswith("'tiny.inter' line 9: ")
    (folder / 'tiny.inter').unlink()
    assert "put the interactions into 'tiny.inter' there" in find_problems('.')[-1]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='there is no folder'):
        find_problems(tmp_path / 'absent')


def test_users_without_training_do_not_count_as_a_split(folder: Path) -> None:
    lines = (folder / 'tiny.inter').read_text().splitlines()
    kept = [line for line in lines if not line.endswith('\t2')] + [f'{NUM_USERS}\t1\t2']
    (folder / 'tiny.inter').write_text('\n'.join(kept) + '\n')
    assert [problem.split(' holds ')[1][:20] for problem in find_problems(folder)] == ['no test interactions']
