"""Tests of dgmrec_pyg.demo: the command line and its server, and the pages in a real browser, which are skipped where
Chromium, its driver or selenium is not installed."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browsing import check_dark_mode, check_width, emulate, requested, show
from finished_run import ITEM_IDS, make_run

from dgmrec_pyg.demo.__main__ import main
from dgmrec_pyg.inference import load_run

Output = pytest.CaptureFixture[str]
EVIL = '<script>window.injected=1</script><img src=x onerror="window.injected=1">'
TAB, ENTER = '\ue004', '\ue007'


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of DGMRec on a set with hostile names."""
    folder = tmp_path_factory.mktemp('finished')
    run = make_run(folder)
    with open(folder / 'tiny' / 'items.csv', 'w', encoding='utf-8', newline='') as file:
        csv.writer(file).writerows([('itemID', 'asin', 'name'), *(
            (number, one, f'{EVIL} {number}') for number, one in enumerate(ITEM_IDS))])
    return run


@pytest.fixture(scope='module')
def address(finished: Path) -> Iterator[str]:
    """The address of a server that shows the run."""
    server = start(finished)
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line, server.communicate()[1]
    yield line.split()[0]
    server.terminate()
    server.communicate(timeout=300)


def start(run: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, '-m', 'dgmrec_pyg.demo', '--run', str(run), '--port', '0', *arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, 'OMP_NUM_THREADS': '1'})


def fields(browser: Any) -> dict[str, Any]:
    """The two fields, found by what their labels say."""
    return {label.text: browser.find_element('id', label.get_attribute('for'))
            for label in browser.find_elements('tag name', 'label')}


def wait_for(browser: Any, heading: str) -> None:
    """Waits until the browser shows a page of this heading; raises where it does not come."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 120, ignored_exceptions=[StaleElementReferenceException]).until(
        lambda shown: shown.find_element('tag name', 'h1').text == heading)


@pytest.fixture
def opened(browser: Any, address: str) -> Any:
    """A browser that shows the start page."""
    show(browser, address)
    return browser


# In a browser #########################################################################################################


def test_from_a_user_to_an_item_and_back(opened: Any, address: str, finished: Path) -> None:
    fields(opened)['User'].send_keys('u005', ENTER)
    wait_for(opened, 'u005')
    best = load_run(finished).recommend(['u005'], k=1)
    row = opened.find_element('css selector', '.ranking tbody tr')
    link = row.find_element('tag name', 'a')
    assert link.text == best['name'][0]
    assert f"{best['score'][0]:.4g}" in row.text
    link.click()
    wait_for(opened, best['name'][0])
    assert opened.current_url == f"{address}item?id={best['item'][0]}"
    nearest = opened.find_element('css selector', '.nearest a')
    name = nearest.text
    nearest.click()
    wait_for(opened, name)
    user = opened.find_element('css selector', 'a[href^="/user"]')
    name = user.text
    user.click()
    wait_for(opened, name)
    assert opened.get_log('browser') == []


def test_picking_an_item(opened: Any) -> None:
    fields(opened)['Item, by id or name'].send_keys('i007')
    opened.find_element('css selector', 'form[action="/item"] button').click()
    wait_for(opened, f'{EVIL} 7')
    assert [one.text.split()[0] for one in opened.find_elements('tag name', 'h3')] == ['image', 'text']


def test_with_the_keyboard_alone(opened: Any) -> None:
    """Tab leads past the link to the content and the one to the start into the fields, in their order."""
    focused = []
    for _ in range(6):
        opened.switch_to.active_element.send_keys(TAB)
        focused.append(opened.switch_to.active_element)
    assert [one.get_property('textContent') or one.get_attribute('id') for one in focused] == [
        'To the content', 'tiny', 'user-id', 'Show', 'item-id', 'Show']
    focused[4].send_keys('i003', ENTER)
    wait_for(opened, f'{EVIL} 3')


def test_an_unknown_user_is_told_so(opened: Any) -> None:
    fields(opened)['User'].send_keys('u04', ENTER)
    wait_for(opened, 'No such user')
    assert "has no user 'u04'" in opened.find_element('css selector', '[role=alert]').text
    assert fields(opened)['User'].get_attribute('value') == 'u04'


@pytest.mark.parametrize('path', ['', 'user?id=u005', 'item?id=i003'])
def test_no_errors_and_no_other_requests(path: str, opened: Any, address: str) -> None:
    requested(opened)
    opened.get(address + path)
    assert requested(opened) == [address + path]
    assert opened.get_log('browser') == []


@pytest.mark.parametrize('path', ['', 'user?id=u005', 'item?id=i003', 'item?id=window'])
def test_nothing_is_injected(path: str, opened: Any, address: str) -> None:
    opened.get(address + path)
    assert opened.execute_script('return window.injected') is None
    assert opened.find_elements('tag name', 'img') == opened.find_elements('tag name', 'script') == []
    assert EVIL in opened.find_element('tag name', 'body').text


@pytest.mark.parametrize('width', [360, 1200])
@pytest.mark.parametrize('path', ['', 'user?id=u005', 'item?id=i003'])
def test_no_page_is_wider_than_its_screen(path: str, width: int, opened: Any, address: str) -> None:
    opened.get(address + path)
    check_width(opened, width)


def test_dark_mode(opened: Any) -> None:
    check_dark_mode(opened)


def test_bars_are_as_long_as_their_scores(opened: Any, address: str, finished: Path) -> None:
    emulate(opened)
    opened.get(address + 'user?id=u005')
    scores = load_run(finished).recommend(['u005'])['score']
    bars = opened.execute_script("""
        return [...document.querySelectorAll('.bar')].map(bar => [...bar.querySelectorAll('rect[y="2"]')]
            .map(one => one.getBoundingClientRect()).map(one => [one.left, one.width]))""")
    zero = bars[0][0][0]  # The collaborative part, the first, is positive.
    lengths = [sum(width if left > zero - 1 else -width for left, width in bar) for bar in bars]
    assert [length / lengths[0] for length in lengths] == pytest.approx(list(scores / scores[0]), abs=0.02)


# The command line #####################################################################################################


def test_the_server_answers_and_ends_by_an_interrupt(finished: Path) -> None:
    server = start(finished)
    assert server.stdout is not None
    line = server.stdout.readline()
    address = line.split()[0]
    assert line == f'{address} shows the run; Ctrl-C ends it\n'
    with urllib.request.urlopen(address + 'user?id=u001') as answer:  # noqa: S310 (our own server)
        assert '<h1>u001</h1>' in answer.read().decode()
    server.send_signal(signal.SIGINT)
    assert server.communicate(timeout=300) == ('', 'stopped\n')
    assert server.returncode == 130


def has_address(host: str) -> bool:
    """Whether this machine can listen there."""
    try:
        socket.create_server((host, 0), family=socket.AF_INET6 if ':' in host else socket.AF_INET).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(('host', 'refused'), [('127.0.0.2', 400), ('::1', 400), ('::', 200)])
def test_a_stranger_cannot_lead_a_name_of_his_to_this_machine(host: str, refused: int, finished: Path) -> None:
    if not has_address(host):
        pytest.skip(f'there is no address {host}')
    server = start(finished, '--host', host)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[0]
        port = urlsplit(address).port
        assert port is not None
        found = {}
        for name in (urlsplit(address).netloc, f'localhost:{port}', f'[::1]:{port}', 'evil.example'):
            connection = HTTPConnection(host, port)
            connection.request('GET', '/', headers={'Host': name})
            found[name] = connection.getresponse().status
            connection.close()
    finally:
        server.terminate()
        server.communicate(timeout=300)
    assert found.pop('evil.example') == refused
    assert set(found.values()) == {200}


def test_a_run_that_is_none(tmp_path: Path, capsys: Output) -> None:
    assert main(['--run', str(tmp_path), '--port', '0']) == 2
    assert capsys.readouterr().err == (f"error: '{tmp_path}' holds no run (config.json is not there); give a folder "
                                       'that dgmrec_pyg.run has written\n')


@pytest.mark.parametrize('library', ['starlette', 'uvicorn'])
def test_a_library_is_not_there(library: str, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    assert main(['--run', 'absent']) == 2
    assert capsys.readouterr().err == f'error: the page needs {library}: pip install "dgmrec-pyg[demo]"\n'


def test_a_port_that_is_taken(capsys: Output) -> None:
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        assert main(['--run', 'absent', '--port', str(port)]) == 2
    assert capsys.readouterr().err == (f"error: cannot listen at '127.0.0.1', port {port} (Address already in use); "
                                       'give another --host or --port (0 for any port that is free)\n')


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--port', '65536'], '--port must be between 0 and 65535 (got 65536)'),
    (['--port', '-1'], '--port must be between 0 and 65535 (got -1)'),
    (['--host', 'no host'], "cannot listen at 'no host', port 8000 ("),
])
def test_no_such_place_to_listen(arguments: list[str], message: str, capsys: Output) -> None:
    assert main(['--run', 'absent', *arguments]) == 2
    assert message in capsys.readouterr().err
