"""Tests of what dgmrec_pyg.demo finds in a finished run; the pages are tested in test_demo.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from finished_run import ITEM_IDS, item_that_lacks
from small_set import NUM_ITEMS, NUM_USERS

from dgmrec_pyg.demo.bars import WIDTH, make_bars
from dgmrec_pyg.demo.explorer import NUM_NEAREST, Explorer
from dgmrec_pyg.demo.views import Item, ItemView, percent
from dgmrec_pyg.inference import FinishedRun, load_run
from dgmrec_pyg.schema import INTERACTS, ITEM, item_features, missing_mask

PARTS = ['collaborative', 'general_image', 'general_text', 'specific_image', 'specific_text']


@pytest.fixture(scope='module')
def run(finished: Path) -> FinishedRun:
    return load_run(finished)


@pytest.fixture(scope='module')
def explorer(run: FinishedRun) -> Explorer:
    return Explorer(run)


def test_a_user_s_recommendations_are_those_of_the_run(run: FinishedRun, explorer: Explorer) -> None:
    view, frame = explorer.user(5), run.recommend(['u005'])
    assert view.id == 'u005'
    assert [one.item.id for one in view.recommendations] == frame['item'].tolist()
    assert [one.item.name for one in view.recommendations] == frame['name'].tolist()
    assert [one.score for one in view.recommendations] == pytest.approx(frame['score'].tolist(), abs=1e-6)
    user, item = run.data[INTERACTS].edge_index
    assert [one.id for one in view.history] == [ITEM_IDS[one] for one in item[user == 5].tolist()]
    assert view.num_history == len(view.history)


def test_parts_add_up_to_the_score(explorer: Explorer) -> None:
    assert [part.key for part in explorer.parts] == PARTS
    for one in explorer.user(5).recommendations:
        assert list(one.parts) == PARTS
        assert sum(one.parts.values()) == pytest.approx(one.score, abs=1e-5)


def test_what_was_held_back_is_marked(run: FinishedRun, explorer: Explorer) -> None:
    pairs = {split: set(map(tuple, run.data[INTERACTS][f'{key}_edge_label_index'].t().tolist()))
             for split, key in (('validation', 'val'), ('test', 'test'))}
    marked = 0
    for user in range(8):
        for one in explorer.user(user).recommendations:
            pair = (user, ITEM_IDS.index(one.item.id))
            assert one.held_back == next((split for split in pairs if pair in pairs[split]), '')
            marked += one.held_back != ''
    assert marked > 0


@pytest.mark.parametrize('lacking', [(), ('image',), ('text',), ('image', 'text')])
def test_nearest_items_are_those_of_a_naive_search(lacking: tuple[str, ...], run: FinishedRun, explorer: Explorer
                                                   ) -> None:
    number = item_that_lacks(run, *lacking)
    view = explorer.item(number)
    assert [one.name for one in view.modalities] == ['image', 'text']
    for one in view.modalities:
        assert one.status == ('generated' if one.name in lacking else 'observed')
        assert view.item.status[one.name] == one.status
        own, missing = item_features(run.data, one.name), missing_mask(run.data, one.name)
        query = run.model.features(one.name)[number] if one.name in lacking else own[number]
        cosine = {other: float(torch.dot(query / query.norm(), own[other] / own[other].norm()))
                  for other in range(NUM_ITEMS) if not missing[other] and other != number}
        best = sorted(cosine, key=lambda other: -cosine[other])[:NUM_NEAREST]
        assert [item.id for item, _ in one.nearest] == [ITEM_IDS[other] for other in best]
        assert [value for _, value in one.nearest] == pytest.approx([cosine[other] for other in best], abs=1e-5)


def test_generated_features_are_held_against_the_hidden_ones(run: FinishedRun, explorer: Explorer) -> None:
    number = item_that_lacks(run, 'image')
    image, text = explorer.item(number).modalities
    own, missing = item_features(run.data, 'image'), missing_mask(run.data, 'image')
    generated, mean = run.model.features('image')[number], own[~missing].mean(dim=0)
    cosine = torch.nn.functional.cosine_similarity
    assert image.truth.centered_cosine == pytest.approx(float(cosine(generated - mean, own[number] - mean, dim=0)),
                                                        abs=1e-5)
    nearer = cosine(own[~missing], generated[None]) > cosine(own[number], generated, dim=0)
    assert (image.truth.rank, image.truth.num_candidates) == (int(nearer.sum()) + 1, int((~missing).sum()) + 1)
    assert list(image.strips) == ['generated', 'hidden']
    assert list(text.strips) == ['observed']
    assert text.truth is None


def test_without_the_hidden_features_nothing_is_held_against_them(run: FinishedRun) -> None:
    number = item_that_lacks(run, 'image')
    data = run.data.clone()
    data[ITEM].x_image = data[ITEM].x_image.masked_fill(data[ITEM].missing_image.unsqueeze(1), float('nan'))
    image, _ = Explorer(FinishedRun(run.path, run.run, data, run.model)).item(number).modalities
    assert (image.status, image.truth, list(image.strips)) == ('generated', None, ['generated'])
    assert len(image.nearest) == NUM_NEAREST


def test_strips_are_of_size_one(explorer: Explorer) -> None:
    for one in explorer.item(3).modalities:
        for values in one.strips.values():
            assert len(values) == one.size
            assert max(map(abs, values)) == pytest.approx(1.0)


def test_examples_to_start_with(run: FinishedRun, explorer: Explorer) -> None:
    view = explorer.start()
    user, item = run.data[INTERACTS].edge_index
    assert (view.num_users, view.num_items, view.num_interactions) == (NUM_USERS, NUM_ITEMS, user.numel())
    assert [length for _, length in view.users] == sorted((length for _, length in view.users), reverse=True)
    assert len({one for one, _ in view.users}) == len(view.users)
    assert view.missing['image'] == pytest.approx(float(missing_mask(run.data, 'image').float().mean()))
    assert set(view.items) == {'none', 'image', 'text', 'all'}
    for lacking, items in view.items.items():
        wanted = {'none': set(), 'all': {'image', 'text'}}.get(lacking, {lacking})
        assert all(set(one.lacks) == wanted for one in items)
        popularity = [int((item == ITEM_IDS.index(one.id)).sum()) for one in items]
        assert popularity == sorted(popularity, reverse=True)


def test_bars_add_up_around_their_zero() -> None:
    bars = make_bars([{'a': 3.0, 'b': -1.0, 'c': 1.0}, {'a': 1.0, 'b': 0.0, 'c': -0.5}])
    assert (bars.scale, bars.zero) == (WIDTH / 5, WIDTH / 5)
    first, second = ([(one.key, one.x, one.width) for one in row] for row in bars.rows)
    assert first == [('a', 200, 600), ('b', 0, 200), ('c', 800, 200)]
    assert second == [('a', 200, 200), ('c', 100, 100)]
    assert make_bars([{'a': 0.0}]).rows == [[]]


@pytest.mark.parametrize(('text', 'num_users', 'sources'), [
    ('observed', 1200, ['text', '1,200 users']), ('observed', 0, ['text']), ('generated', 1, ['1 user']),
    ('missing', 0, [])])
def test_what_features_are_generated_from(text: str, num_users: int, sources: list[str]) -> None:
    item = Item('7', '', {'image': 'generated', 'text': text})
    assert ItemView(item, False, [], num_users, []).sources == sources


@pytest.mark.parametrize(('share', 'text'), [
    (0.9337, '93.4 %'), (0.0312, '3.12 %'), (-0.0031, '-0.31 %'), (-1e-9, '0.00 %'), (1.0, '100.0 %')])
def test_shares_as_texts(share: float, text: str) -> None:
    assert percent(share) == text
