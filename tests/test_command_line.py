"""Tests of dgmrec_pyg.command_line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHOW = "import os; print(os.environ.get('THP_MEM_ALLOC_ENABLE'))"


@pytest.mark.parametrize(('before', 'value', 'expected'), [
    ('', None, '1'), ('', '0', '0'), ('import torch; ', None, 'None'),
])
def test_pytorch_is_told_before_it_is_loaded_and_nobody_is_overruled(before: str, value: str | None, expected: str
                                                                     ) -> None:
    environment = {name: text for name, text in os.environ.items() if name != 'THP_MEM_ALLOC_ENABLE'}
    environment |= {'PYTHONPATH': str(ROOT)} | ({} if value is None else {'THP_MEM_ALLOC_ENABLE': value})
    code = f"{before}from dgmrec_pyg.run import main; main(['--dry-run', '--output', '/nowhere/x']); {SHOW}"
    answer = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment, check=True)
    assert answer.stdout.splitlines()[-1] == expected
