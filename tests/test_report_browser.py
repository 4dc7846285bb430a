"""The page of a report in a real browser; skipped where Chromium, its driver or selenium is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import check_dark_mode, check_width, requested, show
from report_case import failed_cell, make_cell, write_models, write_ratios, write_run

from dgmrec_pyg.report.__main__ import main

EVIL = '<script>window.injected=1</script><img src=x onerror="window.injected=1">'


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Any:
    """A browser that shows a page with tables, charts, a failed cell and hostile names."""
    results = write_ratios(tmp_path)
    for place in (0.0, 0.4):
        results.add(make_cell({'model': EVIL, 'missing_ratio': place, 'seed': 0}, 0.25))
    results.add(failed_cell({'model': 'slmrec', 'missing_ratio': 0.4, 'seed': 0}, f'no memory {EVIL}'))
    show_report(browser, tmp_path)
    return browser


def show_report(browser: Any, folder: Path) -> None:
    assert main([str(folder)]) == 0
    show(browser, (folder / 'report.html').as_uri())


def column(browser: Any, number: int, table: int = 0) -> list[str]:
    """The texts of a column, from above."""
    return browser.execute_script('return [...document.querySelectorAll("table")[arguments[0]].tBodies[0].rows]'
                                  '.map(row => row.cells[arguments[1]].textContent.trim())', table, number)


def head(browser: Any, number: int, table: int = 0) -> Any:
    return browser.find_elements('tag name', 'table')[table].find_elements('css selector', 'th')[number]


def test_no_errors_and_no_requests(opened: Any) -> None:
    assert opened.get_log('browser') == []
    assert requested(opened) == [opened.current_url]


def test_nothing_is_injected(opened: Any) -> None:
    assert opened.execute_script('return window.injected') is None
    assert opened.find_elements('tag name', 'img') == []
    assert len(opened.find_elements('tag name', 'script')) == 1
    assert EVIL in column(opened, 0)


def test_a_script_that_got_in_would_not_run(opened: Any) -> None:
    """The page's policy knows its own script alone."""
    opened.execute_script('''
        const script = document.createElement('script');
        script.textContent = 'window.injected = 1';
        document.body.append(script);
        document.body.insertAdjacentHTML('beforeend', '<button id="bad" onclick="window.injected = 1">x</button>');
        document.getElementById('bad').click();''')
    assert opened.execute_script('return window.injected') is None
    assert any('Content Security Policy' in entry['message'] for entry in opened.get_log('browser'))


def test_sorting_by_click(opened: Any) -> None:
    assert column(opened, 0) == ['dgmrec', EVIL, 'lightgcn', 'vbpr']
    head(opened, 2).find_element('tag name', 'button').click()
    assert column(opened, 0) == ['dgmrec', EVIL, 'lightgcn', 'vbpr']
    assert head(opened, 2).get_attribute('aria-sort') == 'descending'
    head(opened, 2).find_element('tag name', 'button').click()
    assert column(opened, 0) == ['vbpr', 'lightgcn', EVIL, 'dgmrec']
    assert head(opened, 2).get_attribute('aria-sort') == 'ascending'
    head(opened, 0).find_element('tag name', 'button').click()
    assert column(opened, 0) == [EVIL, 'dgmrec', 'lightgcn', 'vbpr']
    assert head(opened, 2).get_attribute('aria-sort') is None


def test_what_has_no_value_is_always_last(opened: Any) -> None:
    """The hostile model has no cell at the last ratio."""
    for _ in range(2):
        head(opened, 4).find_element('tag name', 'button').click()
        assert column(opened, 0)[-1] == EVIL


@pytest.mark.parametrize('key', ['\ue007', ' '])  # Enter, space
def test_sorting_by_keyboard(opened: Any, key: str) -> None:
    """Tab goes from a column's name to the next."""
    opened.execute_script('arguments[0].focus()', head(opened, 1).find_element('tag name', 'button'))
    opened.switch_to.active_element.send_keys('\ue004')  # Tab
    focused = opened.switch_to.active_element
    assert focused.text == head(opened, 2).text
    focused.send_keys(key)
    opened.switch_to.active_element.send_keys(key)
    assert column(opened, 0) == ['vbpr', 'lightgcn', EVIL, 'dgmrec']


def test_numbers_sort_as_numbers(browser: Any, tmp_path: Path) -> None:
    """As texts, 1e-9 would stand behind 0.2, and 10 before 9."""
    results = write_models(tmp_path, models=())
    for name, value in (('model 9', 0.2), ('model 10', 1e-9), ('model 1', 0.3)):
        results.add(make_cell({'model': name, 'seed': 0}, value))
    show_report(browser, tmp_path)
    head(browser, 2).find_element('tag name', 'button').click()
    assert column(browser, 0) == ['model 1', 'model 9', 'model 10']
    head(browser, 0).find_element('tag name', 'button').click()
    assert column(browser, 0) == ['model 1', 'model 9', 'model 10']


@pytest.mark.parametrize('width', [360, 1200])
def test_no_page_is_wider_than_its_screen(opened: Any, width: int) -> None:
    check_width(opened, width)


def test_dark_mode(opened: Any) -> None:
    check_dark_mode(opened)


def test_charts_are_drawn(opened: Any) -> None:
    """Lines have a size on the screen, within that of their picture."""
    assert len(opened.find_elements('tag name', 'figure')) == 2
    widths = [line.size['width'] for line in opened.find_elements('css selector', 'figure polyline')]
    assert len(widths) == 2 * 4  # metrics by models
    assert min(widths) > 50


def test_epochs_are_drawn(browser: Any, tmp_path: Path) -> None:
    """Lines go from left to right with the chosen epoch on them; terms are folded until asked for."""
    for seed in (0, 1):
        write_run(tmp_path / f'run{seed}', seed)
    show_report(browser, tmp_path)
    validation, loss, *terms = browser.find_elements('tag name', 'figure')
    for figure in (validation, loss):
        assert [line.size['width'] > 100 for line in figure.find_elements('tag name', 'polyline')] == [True, True]
        assert len(figure.find_elements('css selector', 'g.series circle title')) == 2
    assert [figure.is_displayed() for figure in terms] == [False, False]
    browser.find_element('css selector', 'section details summary').click()
    assert all(figure.is_displayed() for figure in terms)
    ids = browser.execute_script('return [...document.querySelectorAll("[id]")].map(element => element.id)')
    assert len(ids) == len(set(ids))
