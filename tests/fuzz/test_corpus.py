"""Replays the inputs kept from fuzzing, and runs the fuzzer itself where asked to (``pytest -m slow``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from readers import CORPUS, Readers

from dgmrec_pyg.errors import UserError

INPUTS = sorted(path.relative_to(CORPUS) for path in CORPUS.glob('*/*'))
NAMES = sorted({path.parts[0] for path in INPUTS})


@pytest.fixture
def readers(tmp_path: Path) -> Readers:
    return Readers(tmp_path)


def test_every_reader_has_a_corpus(readers: Readers) -> None:
    assert sorted(readers.by_name) == NAMES


@pytest.mark.parametrize('path', INPUTS, ids=str)
def test_kept_inputs_give_data_or_an_error_of_the_project(readers: Readers, path: Path) -> None:
    readers[path.parts[0]]((CORPUS / path).read_bytes())


@pytest.mark.parametrize('path', [path for path in INPUTS if path.name.startswith('sound-')], ids=str)
def test_sound_inputs_are_read(readers: Readers, path: Path) -> None:
    # Else the test above would hold for a reader that refuses everything.
    readers.by_name[path.parts[0]]((CORPUS / path).read_bytes())


@pytest.mark.parametrize('path', [path for path in INPUTS if path.name.startswith('bad-')], ids=str)
def test_bad_inputs_are_refused(readers: Readers, path: Path) -> None:
    with pytest.raises(UserError):
        readers.by_name[path.parts[0]]((CORPUS / path).read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_100_000_inputs(name: str) -> None:
    pytest.importorskip('atheris')
    answer = subprocess.run([sys.executable, Path(__file__).with_name('fuzz_readers.py'), '--runs', '100000',
                             '--reader', name], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert 'finds: 0' in answer.stdout
