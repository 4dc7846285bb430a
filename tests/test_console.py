"""Tests of dgmrec_pyg.console."""

from __future__ import annotations

from typing import Any

import pytest

from dgmrec_pyg import console
from dgmrec_pyg.config import TrainingConfig

DATA = {'num_users': 1234, 'num_items': 800, 'num_train': 56789, 'num_val': 100, 'num_test': 1000, 'is_new': 0,
        'modalities': {'audio': 32, 'image': 64}, 'missing': {'audio': 200, 'image': 0}, 'missing_any': 200}


def metrics(recall: float, best_epoch: int = 7) -> dict[str, Any]:
    test = {'recall@20': recall, 'ndcg@20': 0.5, 'precision@20': 0.05, 'hit_ratio@20': 0.75}
    return {'val': {'recall@20': recall / 2}, 'test': test, 'best_epoch': best_epoch, 'seconds': 12.34}


def test_table_is_aligned() -> None:
    assert console.table(['model', 'recall'], [['a long name', '0.1'], ['b', '0.12345']]) == '\n'.join([
        'model         recall',
        '--------------------',
        'a long name      0.1',
        'b            0.12345',
    ])


def test_table_without_rows() -> None:
    assert console.table(['a', 'b'], []) == 'a  b\n----'


def test_table_refuses_rows_of_another_length() -> None:
    with pytest.raises(ValueError, match='zip'):
        console.table(['a', 'b'], [['1', '2', '3']])


def test_names_of_a_set_do_not_reach_the_terminal_raw() -> None:
    data = {**DATA, 'modalities': {'\x1b[2J': 32}, 'missing': {'\x1b[2J': 0}}
    text = console.describe_data(data, 'baby\x1b]0;title\x07\n')
    assert text.startswith(r'baby\x1b]0;title\x07\n: 1,234 users')
    assert r'modalities: \x1b[2J 32 ' in text
    assert '\x1b' not in text
    assert len(text.splitlines()) == 2


def test_describe_data() -> None:
    assert console.describe_data(DATA, 'baby') == (
        'baby: 1,234 users, 800 items, 56,789 training / 100 validation / 1,000 test interactions\n'
        'modalities: audio 32 (25 % missing), image 64 (0 % missing); 25 % of the items lack at least one')
    assert '800 items, 160 new, 56,789' in console.describe_data({**DATA, 'is_new': 160}, 'baby')
    assert console.describe_data({**DATA, 'modalities': {}}, 'baby').endswith('modalities: none')


@pytest.mark.parametrize(('num_train', 'max_steps', 'line'), [
    (10**6, 128, 'batches of 7,813 interactions, so that an epoch has at most 128 steps; --set max_steps=0 for batches '
                 'of 512'),
    (128 * 512, 128, ''), (10**6, 0, '')])
def test_batches_larger_than_asked_for_are_told(num_train: int, max_steps: int, line: str) -> None:
    training = TrainingConfig(batch_size=512, max_steps=max_steps).to_dict()
    assert console.describe_batches(training, num_train) == line


def test_results_show_the_run_first_and_then_what_it_is_compared_with() -> None:
    compare = {'popularity': metrics(0.1, best_epoch=0), 'lightgcn': metrics(0.2)}
    header, rule, *rows = console.results({**metrics(0.3), 'compare': compare}, 'dgmrec').splitlines()
    assert header.split('  ')[0] == 'model'
    assert set(rule) == {'-'}
    assert [row.split() for row in rows] == [
        ['dgmrec', '0.1500', '0.3000', '0.5000', '0.0500', '0.7500', '7', '12.3'],
        ['popularity', '0.0500', '0.1000', '0.5000', '0.0500', '0.7500', '-', '12.3'],
        ['lightgcn', '0.1000', '0.2000', '0.5000', '0.0500', '0.7500', '7', '12.3'],
    ]
    assert len({len(line) for line in (header, rule, *rows)}) == 1
    assert console.results(metrics(0.3), 'dgmrec').count('\n') == 2


def test_generation_shows_both_cosines_of_all_hidden_items() -> None:
    quality = {'num_items': 12, 'cosine': {'generated': 0.9, 'imputed': 0.8},
               'centered_cosine': {'generated': 0.4, 'imputed': 0.0}}
    text = console.generation({'generation': {'image': {'missing:image': {}, 'all': quality}}})
    assert text.splitlines()[-1].split() == ['image', '12', '0.900', '0.800', '0.400', '0.000']
    assert 'true features of hidden items' in text


@pytest.mark.parametrize('empty', [{}, {'generation': {}}])
def test_generation_says_nothing_where_nothing_was_hidden(empty: dict[str, Any]) -> None:
    assert console.generation(empty) == ''


def test_results_of_new_items_have_a_table_of_their_own() -> None:
    found = metrics(0.25) | {'among_new_items': {'num_items': 1234, **metrics(0.5)['test']},
                             'compare': {'lightgcn': metrics(0.2) | {'among_new_items': metrics(0.125)['test']}}}
    lines = console.results(found, 'dgmrec').splitlines()
    title = lines.index('test metrics where only the 1,234 new items are ranked')
    assert [line.split()[:2] for line in lines[title + 3:]] == [['dgmrec', '0.5000'], ['lightgcn', '0.1250']]
    assert 'new items' not in console.results(metrics(0.25), 'dgmrec')
