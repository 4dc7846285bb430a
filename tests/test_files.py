"""Tests of dgmrec_pyg.files."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgmrec_pyg.files import csv_cell

FORMULAS = ['=1+1', '=cmd|\' /C calc\'!A0', '=HYPERLINK("http://a.example","x")', '@SUM(1+1)', '+1+1', '-2+3+cmd|x!A0',
            '-HYPERLINK("x")', '=', '-1 2', '+(A1)', '@a b', '-1e+5e+5', "-'x'", ' =1', '"=1"',
            '\ufeff=1', '\u200b\u2060@a b', '\0=1', '\xa0=1', '\uff1d1+1', '\uff0b(A1)', '\uff0d1', '\uff20SUM(1)']
SPLIT = [('a;=1+1', "a;'=1+1"), ('a,@b(c)', "a,'@b(c)"), ('a; =1', "a;' =1"), ('a;"=1"', "a;'\"=1\""),
         ('=1;=2,=3', "'=1;'=2,'=3"), ('a;\ufeff\uff1d1', "a;'\ufeff\uff1d1"), ('\t=1', "' =1"), ('a;\r\n=1', "a;' =1"),
         ('a\tb\r\nc\nd\u2028e', 'a b c d e'), ('a\n=1', 'a =1')]
PLAIN = ['B00A', '17', '-17', '-1.5', '+3', '-1e+5', '-2.5E-3', '-dQw4w9-W_gXcQ', '@anna', '-', '', 'a=b', '1-2',
         'größer', "'quoted'", '-größer', 'a;b,c', 'a;-17', 'a, b-c',
         'a;b=c', '\ufeff-17', 'a"b']


@pytest.mark.parametrize('text', FORMULAS)
def test_formulas_get_an_apostrophe(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize(('text', 'cell'), SPLIT)
def test_no_part_is_a_formula_where_a_spreadsheet_splits_a_cell(text: str, cell: str) -> None:
    assert csv_cell(text) == cell


@pytest.mark.parametrize('text', PLAIN)
def test_numbers_and_ids_stay_as_they_are(text: str) -> None:
    assert csv_cell(text) == text


def test_numbers_that_are_no_texts() -> None:
    assert [csv_cell(value) for value in (3, -3, 0.5, -1e-7)] == ['3', '-3', '0.5', '-1e-07']


@given(st.text(max_size=20) | st.text('=+-@\uff1d;,"\t\r\n\ufeff a1(', max_size=20))
def test_no_part_of_a_cell_calls_anything_and_nothing_is_lost(text: str) -> None:
    cell = csv_cell(text)
    assert cell.replace("'", '').split() == text.replace("'", '').split()
    assert not set(cell) & set('\t\r\n')
    for part in re.split('[;,]', cell):
        shown = part.lstrip(' "\ufeff')
        assert not shown.startswith(tuple('=\uff1d\uff0b\uff0d\uff20'))
        if shown.startswith(tuple('+-@')):
            assert not set(shown) & set('=()|!"\'*/\\ ')
    file = io.StringIO(newline='')
    csv.writer(file).writerow([cell, 'next'])
    assert next(csv.reader(io.StringIO(file.getvalue(), newline=''))) == [cell, 'next']
