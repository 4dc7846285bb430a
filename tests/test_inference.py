"""Tests of dgmrec_pyg.inference: a finished run, taken up again."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from finished_run import ITEM_IDS, USER_IDS, make_run
from small_set import NUM_ITEMS, NUM_USERS, SIZES

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.inference import load_run
from dgmrec_pyg.new_items import NewItems, read_new_items

NEW = NewItems(('new', 'newer'), {'image': torch.ones(2, SIZES['image']),
                                  'text': torch.tensor([[math.nan] * SIZES['text'], [0.5] * SIZES['text']])})


def recommended(path: Path) -> list[tuple[str, int, str, str]]:
    with open(path / 'recommendations.csv', encoding='utf-8', newline='') as file:
        return [(row['user'], int(row['rank']), row['item'], row['name']) for row in csv.DictReader(file)]


def test_a_run_recommends_what_it_wrote_down(finished: Path) -> None:
    run = load_run(finished)
    frame = run.recommend()
    assert list(frame) == ['user', 'rank', 'item', 'score', 'name']
    found = list(frame[['user', 'rank', 'item', 'name']].itertuples(index=False, name=None))
    assert found == recommended(finished)
    some = run.recommend(['u007', 'u000'], k=3)
    assert some['user'].tolist() == ['u007'] * 3 + ['u000'] * 3
    assert some['item'].tolist()[3:] == frame['item'].tolist()[:3]
    assert some['score'].tolist()[3:] == pytest.approx(frame['score'].tolist()[:3], abs=1e-6)


@pytest.mark.parametrize('model', ['popularity', 'lattice'])
def test_every_kind_of_model_is_taken_up(model: str, tmp_path: Path) -> None:
    path = make_run(tmp_path, model=model)
    frame = load_run(path).recommend()
    assert list(frame[['user', 'rank', 'item', 'name']].itertuples(index=False, name=None)) == recommended(path)


def test_held_out_new_items_are_in_the_ranking(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path, '--new-items'))
    new = run.item_ids[run.data['item'].is_new.numpy()]
    assert len(new) > 0
    found = run.recommend(k=NUM_ITEMS, candidates=new)
    assert set(found['item']) == set(new)


def test_only_candidates_and_seen_items(finished: Path) -> None:
    run = load_run(finished)
    edges = run.model.train_edge_index
    seen = run.item_ids[edges[1, edges[0] == 5].numpy()]
    assert set(run.recommend(['u005'], k=100)['item']) == set(ITEM_IDS) - set(seen)
    assert set(run.recommend(['u005'], k=100, exclude_seen=False)['item']) == set(ITEM_IDS)
    unseen = next(item for item in ITEM_IDS if item not in seen)
    assert run.recommend(['u005'], candidates=[seen[0], unseen])['item'].tolist() == [unseen]
    assert run.recommend([], k=3).empty


def test_numbers_where_the_set_has_no_ids(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path, model='lightgcn', raw_ids=False))
    assert run.recommend([3], k=1).equals(run.recommend(['3'], k=1))
    assert list(run.recommend([3], k=1)) == ['user', 'rank', 'item', 'score']


def test_for_a_list_of_items(finished: Path) -> None:
    run = load_run(finished)
    frame = run.recommend_for_items(['i003', 'i001', 'i003'], k=100)
    assert list(frame) == ['rank', 'item', 'score', 'name']
    assert set(frame['item']) == set(ITEM_IDS) - {'i001', 'i003'}
    assert frame['score'].is_monotonic_decreasing
    scores = run.model.score_for_items(torch.tensor([1, 3]))
    number = [ITEM_IDS.index(item) for item in frame['item']]
    assert frame['score'].tolist() == pytest.approx(scores[number].tolist(), abs=1e-6)
    assert set(run.recommend_for_items(['i003'], k=100, exclude_seen=False)['item']) == set(ITEM_IDS)
    assert run.recommend_for_items(['i003'], candidates=['i004'])['item'].tolist() == ['i004']


def test_items_go_by_their_names_too(finished: Path) -> None:
    run = load_run(finished)
    run.data.item_name = ['same', 'same', 'i005', *run.data.item_name[3:]]
    assert run.items(['Item no. 7', 'i001', 'i005', 'i002']).tolist() == [7, 1, 5, 2]
    with pytest.raises(UserError, match="has no item 'same'"):
        run.items(['same'])


def test_new_items_are_ranked_beside_the_old_ones(finished: Path) -> None:
    run = load_run(finished)
    frame = run.recommend(k=100, new_items=NEW, exclude_seen=False)
    assert set(frame['item']) == {*ITEM_IDS, 'new', 'newer'}
    assert set(frame.loc[frame['item'] == 'new', 'name']) == {''}
    old = frame[~frame['item'].isin(NEW.ids)]
    without = run.recommend(k=100, exclude_seen=False)
    assert old['item'].tolist() == without['item'].tolist()
    assert run.recommend(['u001'], candidates=['newer'], new_items=NEW)['item'].tolist() == ['newer']
    with pytest.raises(UserError, match="has no item 'newer'"):
        run.recommend(['u001'], candidates=['newer'])


def test_new_items_from_a_file(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / 'new.npz'
    np.savez(path, image=NEW.features['image'].numpy(), text=NEW.features['text'].numpy().astype(np.float16))
    items = read_new_items(path)
    assert items.ids == ('new-0', 'new-1')
    run = load_run(finished)
    expected = run.recommend(k=5, new_items=NEW)
    found = run.recommend(k=5, new_items=items)
    assert found['item'].replace({'new-0': 'new', 'new-1': 'newer'}).tolist() == expected['item'].tolist()
    np.savez(path, id=np.array(['a', 'b']), image=NEW.features['image'].numpy())
    assert read_new_items(path).ids == ('a', 'b')


@pytest.mark.parametrize(('arrays', 'message'), [
    ({'id': np.array(['a']), 'image': np.zeros((2, 8))}, 'has 1 ids for 2 items'),
    ({'image': np.zeros(8)}, r"'image' is float64 of shape \[8\]"),
    ({'image': np.array([['a']])}, r"'image' is <U1 of shape \[1, 1\]"),
    ({'image': np.array([{}], dtype=object)}, 'cannot read .* Object arrays cannot be loaded'),
])
def test_bad_files_of_new_items(arrays: dict, message: str, tmp_path: Path) -> None:
    path = tmp_path / 'new.npz'
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=message):
        read_new_items(path)


def test_what_is_no_archive_of_new_items(tmp_path: Path) -> None:
    (tmp_path / 'text.npz').write_text('abc')
    for path in (tmp_path / 'text.npz', tmp_path / 'absent.npz', tmp_path):
        with pytest.raises(UserError, match='cannot read'):
            read_new_items(path)


@pytest.mark.parametrize(('call', 'message'), [
    (lambda run: run.recommend(['u00', 'x']), r"no user 'u00' \(2 of 2 are unknown\); its 40 users have ids "
                                              r"such as 'u000'; did you mean 'u0\d\d'\?$"),
    (lambda run: run.recommend(['0000']), r"has no user '0000'; its 40 users have ids"),  # no guess from digits
    (lambda run: run.recommend(candidates=['i999']), "has no item 'i999'"),
    (lambda run: run.recommend_users(), 'which items are users to be ranked for'),
    (lambda run: run.recommend_users(['i001'], k=0), 'k must be at least 1'),
    (lambda run: run.recommend_users(['i001'], candidates=['me']), "has no user 'me'"),
    (lambda run: run.recommend_users(['new']), "has no item 'new'"),
    (lambda run: run.recommend_users(['030', '031'], new_items=NEW),
     r"no item '030' \(2 of 2 are unknown\); its 30 items have ids such as 'i000'; new items: 'new' to 'newer'$"),
    (lambda run: run.recommend(['u000'], candidates=['030'],
                               new_items=NewItems(('fresh',), {'image': torch.ones(1, SIZES['image'])})),
     "its 30 items have ids such as 'i000'; new items: 'fresh'$"),
    (lambda run: run.recommend(k=0), 'k must be at least 1'),
    (lambda run: run.recommend_for_items([]), 'the list of items is empty'),
    (lambda run: run.recommend_for_items(['i0'], k=-1), "has no item 'i0'"),
    (lambda run: run.recommend(new_items=NewItems(('i001',), {'image': torch.ones(1, 8)})),
     "'i001' is an item of the set"),
    (lambda run: run.recommend(new_items=NewItems(('a', 'a'), {'image': torch.ones(2, 8)})),
     'two of them are the same'),
    (lambda run: run.recommend(new_items=NewItems(('a',), {'image': torch.ones(2, 8)})), '1 ids for 2 new items'),
    (lambda run: run.recommend(new_items=NewItems(('a',), {'sound': torch.ones(1, 8)})), 'which the set lacks'),
])
def test_bad_questions(call: Callable, message: str, finished: Path) -> None:
    run = load_run(finished)
    with pytest.raises(UserError, match=message):
        call(run)


@pytest.mark.parametrize('exclude_seen', [True, False])
def test_users_for_items_have_the_scores_of_items_for_users(exclude_seen: bool, finished: Path) -> None:
    run = load_run(finished)
    asked = ['newer', 'i007', 'i002']
    found = run.recommend_users(asked, k=100, exclude_seen=exclude_seen, new_items=NEW)
    assert list(found) == ['item', 'rank', 'user', 'score', 'name']
    assert found['item'].drop_duplicates().tolist() == asked
    for item, ranking in found.groupby('item'):
        assert ranking['rank'].tolist() == list(range(1, len(ranking) + 1))
        assert ranking['score'].is_monotonic_decreasing, item
    by_user = run.recommend(k=100, exclude_seen=exclude_seen, new_items=NEW)
    columns = ['user', 'item', 'name', 'score']
    expected = by_user.loc[by_user['item'].isin(asked), columns].sort_values(columns[:2], ignore_index=True)
    given = found[columns].sort_values(columns[:2], ignore_index=True)
    pd.testing.assert_frame_equal(given, expected, rtol=0.0, atol=1e-6)  # Cosines are rounded as numbers near 1 are.


def test_users_for_new_items_and_among_candidates(finished: Path) -> None:
    run = load_run(finished)
    everyone = run.recommend_users(k=3, new_items=NEW)
    assert everyone['item'].tolist() == ['new'] * 3 + ['newer'] * 3
    some = run.recommend_users(['i000'], k=2, candidates=['u039', 'u011'], exclude_seen=False)
    assert set(some['user']) == {'u011', 'u039'}


def test_users_for_held_out_new_items(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path, '--new-items'))
    new = run.item_ids[run.data['item'].is_new.numpy()][:2]
    found = run.recommend_users(new, k=NUM_USERS)  # Nobody has them.
    assert len(found) == 2 * NUM_USERS


def test_models_without_embeddings_cannot_place_new_items(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path, model='popularity'))
    with pytest.raises(UserError, match='Popularity has no embeddings'):
        run.recommend(new_items=NEW)
    with pytest.raises(UserError, match='Popularity has no embeddings'):
        run.recommend_users(['i001'])


# What is wrong with the run ###########################################################################################


def changed_set(folder: Path) -> None:
    features = np.load(folder / 'tiny' / 'text_feat.npy')
    features[0, 0] += 1
    np.save(folder / 'tiny' / 'text_feat.npy', features)


def changed_config(part: str, key: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / 'run' / 'config.json'
        config = json.loads(path.read_text())
        config[part][key] = value
        path.write_text(json.dumps(config))
    return change


def without_setting(folder: Path) -> None:
    path = folder / 'run' / 'config.json'
    config = json.loads(path.read_text())
    del config['model']['ranking_loss']
    path.write_text(json.dumps(config))


def changed_checkpoint(key: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / 'run' / 'checkpoint.pt'
        torch.save({**torch.load(path, weights_only=True), key: value}, path)
    return change


def no_checkpoint(folder: Path) -> None:
    for path in (folder / 'run').glob('checkpoint*'):
        path.unlink()


@pytest.mark.parametrize(('spoil', 'message'), [
    (lambda folder: (folder / 'run' / 'config.json').unlink(), r'holds no run \(config.json is not there\)'),
    (lambda folder: (folder / 'run' / 'config.json').write_text('{}'), "'.*config.json' is damaged"),
    (changed_config('run', 'model', 'lightgc'), "'.*config.json' is damaged"),
    (changed_config('run', 'seed', 'x'), "'.*config.json' is damaged"),
    (changed_config('model', 'knn_kk', 3), "'.*config.json' is damaged"),
    (changed_config('model', 'knn_k', 3), 'made with other settings or data than config.json says'),
    (without_setting, "is of an earlier version, whose models had no 'ranking_loss'"),
    (changed_set, "set 'tiny' is not the one that the run in '.*' was made with"),
    (no_checkpoint, 'has no checkpoint yet'),
    (changed_checkpoint('best_model', None), 'has not been evaluated yet'),
    (changed_checkpoint('best_model', {}), 'is damaged or of another model'),
    (changed_checkpoint('made_of', 3), 'is damaged or of another model'),
    (lambda folder: shutil.rmtree(folder / 'tiny'), "there is no set 'tiny'"),
])
def test_a_run_that_cannot_be_taken_up(spoil: Callable[[Path], object], message: str, finished: Path, tmp_path: Path
                                       ) -> None:
    folder = tmp_path / 'copy'
    shutil.copytree(finished.parent, folder)
    spoil(folder)
    with pytest.raises(UserError, match=message):
        load_run(folder / 'run', root=str(folder))


def test_the_set_may_have_moved(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished.parent, tmp_path / 'copy')
    expected = load_run(finished).recommend()
    assert load_run(finished, dataset=str(tmp_path / 'copy' / 'tiny')).recommend().equals(expected)
    assert len(set(expected['user'])) == NUM_USERS == len(USER_IDS)
