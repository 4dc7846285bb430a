"""Tests of dgmrec_pyg.training.heap."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from dgmrec_pyg.training import heap

STATUS = Path('/proc/self/status')
needs_glibc = pytest.mark.skipif(not STATUS.exists() or not hasattr(ctypes.CDLL(None), 'malloc_trim'),
                                 reason='needs glibc on Linux')

VARIABLES = ('MALLOC_ARENA_MAX', 'MALLOC_TRIM_THRESHOLD_', 'MALLOC_MMAP_THRESHOLD_', 'GLIBC_TUNABLES')

# In a process of its own, whose heap no other test has used: how much of some blocks it still holds once they are free.
HELD = """
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

heap = SimpleNamespace(**runpy.run_path(sys.argv[1]))

def resident_bytes():
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith('VmRSS:'))

heap.keep_freed_memory()
{before}
start = resident_bytes()
blocks = [b'.' * {size} for _ in range({total} // {size})]
assert resident_bytes() - start > {total} // 2
end = b'.' * 2**15  # Behind them: what is free at the very end of the heap might be returned anyway.
blocks.clear()
{after}
print(resident_bytes() - start)
"""


def held_bytes(size: int, total: int = 2**27, before: str = '', after: str = '') -> int:
    code = HELD.format(size=size, total=total, before=before, after=after)
    command = [sys.executable, '-c', code, heap.__file__]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@needs_glibc
def test_after_training_blocks_are_kept_as_glibc_would_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert held_bytes(2**24, total=3 * 2**24, before='heap.stop_keeping_freed_memory()') > 2**25


@needs_glibc
@pytest.mark.parametrize(('size', 'calls', 'is_kept'), [
    (2**25, {}, True), (2**15, {}, True), (2**15, {'after': 'heap.give_back_freed_memory()'}, False),
    (2**26, {'before': 'heap.stop_keeping_freed_memory()'}, False),
    (2**15, {'after': 'heap.stop_keeping_freed_memory()'}, False)])
def test_freed_memory_is_kept_until_training_is_over(size: int, calls: dict[str, str], is_kept: bool,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert (held_bytes(size, **calls) > 2**26) == is_kept


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, 'CDLL', lambda name: object())
    for call in (heap.keep_freed_memory, heap.give_back_freed_memory, heap.stop_keeping_freed_memory):
        call()
