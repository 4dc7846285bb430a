"""Tests of the pages of dgmrec_pyg.demo; what they show is tested in test_demo_explorer.py."""

from __future__ import annotations

import html
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import torch
from finished_run import ITEM_IDS, item_that_lacks, make_run
from starlette.testclient import TestClient

from dgmrec_pyg.demo.app import build_app, item_url, user_url
from dgmrec_pyg.demo.explorer import NUM_RECOMMENDED, Explorer
from dgmrec_pyg.inference import FinishedRun, load_run
from dgmrec_pyg.loading import RunSettings
from dgmrec_pyg.nn import LightGCN
from dgmrec_pyg.schema import INTERACTS, ITEM, build_data

EVIL = '"><script>window.injected=1</script><img src=x onerror="window.injected=1">'


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """With a weight of the modalities at which all scores shown to user u005 are positive, so that they have shares."""
    return load_run(make_run(tmp_path_factory.mktemp('demo'), '--set', 'modality_weight=1'))


@pytest.fixture(scope='module')
def explorer(run: FinishedRun) -> Explorer:
    return Explorer(run)


class Site:
    """The pages of a run, as a browser would ask for them."""

    def __init__(self, run: FinishedRun) -> None:
        self.client = TestClient(build_app(run), base_url='http://127.0.0.1', follow_redirects=False)

    def get(self, url: str, status: int = 200) -> str:
        answer = self.client.get(url)
        assert answer.status_code == status
        assert answer.headers['content-type'].startswith('text/html')
        return answer.text


@pytest.fixture(scope='module')
def site(run: FinishedRun) -> Site:
    return Site(run)


def text_of(page: str) -> str:
    """What a reader sees: no tags, spaces made one."""
    body = re.sub(r'<(style|svg)\b.*?</\1>', ' ', page, flags=re.DOTALL)
    return ' '.join(html.unescape(re.sub(r'<[^>]*>', ' ', body)).split())


def links(page: str, kind: str) -> list[str]:
    """The ids that a page links to, in its order."""
    found = [html.unescape(url) for url in re.findall(r'href="([^"]*)"', page)]
    return [parse_qs(urlsplit(url).query)['id'][0] for url in found if urlsplit(url).path == f'/{kind}']


def bare_run(tmp_path: Path, model: type = LightGCN, **arguments: object) -> FinishedRun:
    """A run of a model on a set of two users and three items without features, the second user without history."""
    data = build_data(num_users=2, num_items=3, edge_index=torch.tensor([[0, 0], [0, 2]]), features={})
    for name, value in arguments.items():
        data[name] = value
    return FinishedRun(tmp_path, RunSettings(dataset='bare', model='lightgcn'), data,
                       model.from_data(data, None, torch.Generator().manual_seed(0)).eval())


# Pages ################################################################################################################


def test_the_user_page(site: Site, explorer: Explorer) -> None:
    page, view = site.get('/user?id=u005'), explorer.user(5)
    assert links(page, 'item') == [one.id for one in (*view.history, *(best.item for best in view.recommendations))]
    for one in view.recommendations:
        for key in one.parts:
            assert f'>{one.share(key)}</span>' in page
    text = text_of(page)
    assert 'User u005 History 6 items of training.' in text
    assert view.recommendations[0].item.name in text
    assert 'What these 20 scores are made of, together:' in text


def test_shares_of_all_scores_together(site: Site, explorer: Explorer) -> None:
    best = explorer.user(5).recommendations
    assert all(one.score > 0 for one in best)
    total = sum(one.score for one in best)
    shown = re.findall(r'<dd class="number">(.*?) %</dd>', site.get('/user?id=u005'))
    for text, kind in zip(shown, ('collaborative', 'general', 'specific'), strict=True):
        expected = 100 * sum(value for one in best for key, value in one.parts.items() if key.startswith(kind)) / total
        assert float(text) == pytest.approx(expected, abs=0.05)


def test_scores_that_are_not_all_positive_have_no_shares_together(finished: Path) -> None:
    run = load_run(finished)
    assert Explorer(run).user(5).recommendations[-1].score < 0
    page = Site(run).get('/user?id=u005')
    assert 'together:' not in page
    assert ' %</dd>' not in page


def test_the_item_page(site: Site, run: FinishedRun, explorer: Explorer) -> None:
    number = item_that_lacks(run, 'image')
    page, view = site.get(item_url(ITEM_IDS[number])), explorer.item(number)
    assert links(page, 'item') == [item.id for one in view.modalities for item, _ in one.nearest]
    user, item = run.data[INTERACTS].edge_index
    users = [f'u{one:03d}' for one in sorted(user[item == number].tolist())]
    assert links(page, 'user') == users
    text = text_of(page)
    assert f'Item {ITEM_IDS[number]} Item no. {number} image generated text observed' in text
    assert 'Items whose image is nearest to what was generated' in text
    assert f"Missing. Generated, 8 values, from the item's text and {len(users)} user" in text
    truth = view.modalities[0].truth
    assert f'that feature is number {truth.rank} of {truth.num_candidates};' in text


def test_items_go_by_their_names_too(site: Site) -> None:
    by_name = site.client.get('/item', params={'id': ' Item no. 7 '}).text
    assert '<h1>Item no. 7</h1>' in by_name
    assert 'value="Item no. 7"' in by_name


def test_an_item_that_lacks_nothing(site: Site, run: FinishedRun) -> None:
    text = text_of(site.get(item_url(ITEM_IDS[item_that_lacks(run)])))
    assert 'Nothing is missing: the item has image, text.' in text
    assert 'generated' not in text


def test_the_start_page(site: Site, explorer: Explorer) -> None:
    page, view = site.get('/'), explorer.start()
    assert links(page, 'user') == [one for one, _ in view.users]
    assert links(page, 'item') == [one.id for items in view.items.values() for one in items]
    assert 'users 40 items 30 training interactions 240' in text_of(page)


@pytest.mark.parametrize(('url', 'line', 'found'), [
    ('/user?id=u00', "have ids such as 'u000'; did you mean 'u0", [f'u{one:03d}' for one in range(10)]),
    ('/item?id=no.+29', "has no item 'no. 29'", ['i029']),
    ('/item?id=nothing+like+it', "has no item 'nothing like it'", []),
    ('/nowhere', '/nowhere is no page of this run.', []),
])
def test_what_is_not_there(url: str, line: str, found: list[str], site: Site) -> None:
    page = site.get(url, status=404)
    assert line in text_of(page)
    assert (links(page, 'user') or links(page, 'item')) == found


@pytest.mark.parametrize('url', ['/user', '/item?id=', '/user?id=%20'])
def test_no_id_leads_to_the_start(url: str, site: Site) -> None:
    answer = site.client.get(url)
    assert (answer.status_code, answer.headers['location']) == (303, '/')


def test_fields_have_labels(site: Site) -> None:
    page = site.get('/')
    for kind in ('user', 'item'):
        assert f'<label for="{kind}-id">' in page
        assert f'<form action="/{kind}"' in page
        assert f'<input id="{kind}-id" name="id"' in page


# Other runs ###########################################################################################################


@pytest.mark.parametrize('model', ['popularity', 'lightgcn', 'vbpr'])
def test_other_models(model: str, tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path, model=model))
    site = Site(run)
    text = text_of(site.get('/user?id=u005'))
    assert f"What the scores are made of is shown for DGMRec alone; this run's model is {model}." in text
    assert 'collaborative' not in text
    assert len(Explorer(run).user(5).recommendations) == NUM_RECOMMENDED
    lacking = text_of(site.get(item_url(ITEM_IDS[item_that_lacks(run, 'image')])))
    assert f'Missing, and not generated: {model} generates no features.' in lacking


def test_items_that_the_model_does_not_generate_for(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path, '--set', 'generate_for=single'))
    view = Explorer(run).item(item_that_lacks(run, 'image', 'text'))
    assert [(one.status, one.nearest, one.strips) for one in view.modalities] == [('missing', [], {})] * 2
    assert 'with generate_for = single the model leaves such items' in text_of(Site(run).get(item_url(view.item.id)))


def test_new_items_say_so(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path, '--new-items', raw_ids=False))
    number = int(run.data[ITEM].is_new.nonzero()[0])
    text = text_of(Site(run).get(f'/item?id={number}'))
    assert 'A new item, held out of training.' in text
    assert 'Nobody in the training set.' in text


def test_a_run_without_modalities(tmp_path: Path) -> None:
    site = Site(bare_run(tmp_path))
    assert 'The items of this set have no modalities.' in text_of(site.get('/'))
    assert 'This set has no modalities.' in text_of(site.get('/item?id=0'))
    assert links(site.get('/user?id=0'), 'item') == ['0', '2', '1']


def test_a_user_without_history(tmp_path: Path) -> None:
    site = Site(bare_run(tmp_path))
    page = site.get('/user?id=1')
    assert 'this user has no item in the training set' in text_of(page)
    assert sorted(links(page, 'item')) == ['0', '1', '2']


def test_a_user_who_has_everything(tmp_path: Path) -> None:
    run = bare_run(tmp_path)
    run.model.train_edge_index = torch.tensor([[0, 0, 0], [0, 1, 2]])
    assert 'There is no item left to recommend: all are in the history.' in text_of(Site(run).get('/user?id=0'))


# Safety ###############################################################################################################


@pytest.mark.parametrize('url', ['/', '/user?id=0', user_url(EVIL), item_url(EVIL), item_url('script'),
                                 '/' + EVIL.replace('"', '%22')])
def test_names_are_escaped(url: str, tmp_path: Path) -> None:
    names = {'item_name': [EVIL] * 3, 'raw_id': {'user': ['0', EVIL], 'item': ['0', '1', EVIL]}}
    page = Site(bare_run(tmp_path, **names)).client.get(url).text
    assert '<script' not in page
    assert '<img' not in page
    assert '&lt;script&gt;' in page


def test_odd_ids_have_pages(tmp_path: Path) -> None:
    odd = ['a&b=c#d', EVIL, 'ü/ö\n%41+ ?']
    site = Site(bare_run(tmp_path, raw_id={'item': odd}))
    for one in odd[:2]:
        assert links(site.get('/user?id=1'), 'item').count(one) == 1
        assert 'aria-invalid' not in site.get(item_url(one))
    assert 'aria-invalid' not in site.get(item_url(odd[2]))


def test_pages_may_run_no_script(site: Site) -> None:
    answer = site.client.get('/user?id=u001')
    assert '<script' not in answer.text
    assert answer.headers['content-security-policy'].startswith("default-src 'none'; style-src 'sha256-")
    assert 'script-src' not in answer.headers['content-security-policy']
    assert re.findall(r'(?:src|href)="((?:https?:)?//[^"]*)"', answer.text) == []


def test_other_names_of_the_machine_are_refused(run: FinishedRun, site: Site) -> None:
    """A stranger's page can lead its own name to this machine, and would then be let in."""
    assert site.client.get('/', headers={'host': 'evil.example'}).status_code == 400
    assert site.client.get('/', headers={'host': 'localhost:8000'}).status_code == 200
