"""Completion of the command ``dgmrec`` in real shells, each skipped where it is not installed."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dgmrec_pyg.run import main

pytest.importorskip('argcomplete')

ENDS = {'--mod': '--model', '--model light': 'lightgcn', '--dataset ti': 'tiny'}
BASH = '''
eval "$(dgmrec --print-completion bash)"
for COMP_LINE in "$@"; do
    COMP_POINT=${#COMP_LINE} COMP_TYPE=9
    _python_argcomplete dgmrec
    echo "${COMPREPLY[*]}"
done
'''
FISH = '''
dgmrec --print-completion fish | source
for line in $argv
    complete -C $line
end
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the command and a set, which are found from there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data' / 'tiny').mkdir(parents=True)
    (tmp_path / 'dgmrec').write_text(f'#!/bin/sh\nexec {sys.executable} -m dgmrec_pyg.run "$@"\n')
    (tmp_path / 'dgmrec').chmod(0o755)
    package = str(Path(__file__).parent.parent)
    monkeypatch.setenv('PATH', f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([package, os.environ.get('PYTHONPATH', '')]))


def command(shell: str) -> str:
    return shutil.which(shell) or pytest.skip(f'{shell} is not installed')


def answer(*arguments: str) -> list[str]:
    process = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert process.stderr == ''
    return process.stdout.splitlines()


def lines() -> list[str]:
    return [f'dgmrec {begun}' for begun in ENDS]


def test_bash() -> None:
    assert [line.split() for line in answer(command('bash'), '-c', BASH, '-', *lines(), 'dgmrec --preset ')] == [
        *([end] for end in ENDS.values()), ['default', 'reference']]


def test_fish() -> None:
    found = answer(command('fish'), '--no-config', '-c', FISH, *lines(), 'dgmrec --preset ')
    assert [line.split('\t')[0] for line in found] == [*ENDS.values(), 'default', 'reference']
    assert found[0].endswith('see --list-models')  # What the option is for.


class Terminal:
    """A shell at a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._process, self._end = pty.fork()
        if self._process == 0:
            os.execv(arguments[0], arguments)  # noqa: S606 (found by its name)

    def shows(self, typed: str, text: str) -> bool:
        """Whether the terminal comes to show a text, some time after something was typed."""
        os.write(self._end, typed.encode())
        shown = ''
        while select.select([self._end], [], [], 60)[0]:
            shown += os.read(self._end, 4096).decode(errors='replace')
            if text in re.sub(r'\x1b\[[\d;?]*[a-zA-Z]', '', shown):
                return True
        return False

    def close(self) -> None:
        os.close(self._end)
        os.waitpid(self._process, 0)


@pytest.fixture
def zsh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv('TERM', 'dumb')
    terminal = Terminal(command('zsh'), '-f', '-i')
    assert terminal.shows('autoload -Uz compinit; compinit -D; eval "$(dgmrec --print-completion zsh)"\n', '')
    assert terminal.shows('echo rea""dy\n', 'ready')
    yield terminal
    terminal.close()


def test_zsh(zsh: Terminal) -> None:
    for begun, end in ENDS.items():
        assert zsh.shows(f'dgmrec {begun}\t', f'dgmrec {" ".join([*begun.split()[:-1], end])} ')
        assert zsh.shows('\x15echo rea""dy\n', 'ready')  # Empties the line.


@pytest.mark.parametrize(('shell', 'line'), [('bash', 'complete '), ('zsh', 'compdef '), ('fish', 'complete -')])
def test_what_makes_a_shell_complete(shell: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['--print-completion', shell]) == 0
    assert any(found.strip().startswith(line) and 'dgmrec' in found for found in capsys.readouterr().out.splitlines())
