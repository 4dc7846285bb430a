"""Tests of dgmrec_pyg.files."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgmrec_pyg.files import csv_cell

FORMULAS = ['=1+1', '=cmd|\' /C calc\'!A0', '=HYPERLINK("http://a.example","x")', '@SUM(1+1)', '+1+1', '-2+3+cmd|x!A0',
            '-HYPERLINK("x")', '\t=1+1', '\r=1+1', '\n=1+1', '=', '-1 2', '+(A1)', '@a b', '-1e+5e+5', "-'x'"]
PLAIN = ['B00A', '17', '-17', '-1.5', '+3', '-1e+5', '-2.5E-3', '-dQw4w9-W_gXcQ', '@anna', '-', '', 'a=b', '1-2',
         'größer', "'quoted'", ' =1', '-größer']


@pytest.mark.parametrize('text', FORMULAS)
def test_formulas_get_an_apostrophe(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize('text', PLAIN)
def test_numbers_and_ids_stay_as_they_are(text: str) -> None:
    assert csv_cell(text) == text


def test_numbers_that_are_no_texts() -> None:
    assert [csv_cell(value) for value in (3, -3, 0.5, -1e-7)] == ['3', '-3', '0.5', '-1e-07']


@given(st.text(max_size=20) | st.from_regex(r'\A[=+\-@\t\r\n][ -~]{0,20}'))
def test_no_cell_calls_anything_and_nothing_is_lost(text: str) -> None:
    cell = csv_cell(text)
    assert cell in (text, f"'{text}")
    if cell[:1] in ('=', '+', '-', '@', '\t', '\r', '\n') and cell:
        assert cell[0] in '+-@'
        assert not set(cell) & set('=()|!"\',;:*/\\ \t\r\n')
    file = io.StringIO(newline='')
    csv.writer(file).writerow([cell, 'next'])
    assert next(csv.reader(io.StringIO(file.getvalue(), newline=''))) == [cell, 'next']
