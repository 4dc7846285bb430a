"""What the tests of the benchmarks that compare models share."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import small_set

BENCHMARKS = Path(__file__).resolve().parent.parent / 'benchmarks'
QUICK = ('--epochs', '2', '--set', 'batch_size=128', '--threads', '1')
NAMES = ('missing_ratio', 'missing_level', 'new_items', 'ablation', 'compare', 'retrieval')
SCRIPTS = {name: import_module(name) for name in NAMES}


def write_set(folder: Path) -> Path:
    """Writes a small set of so many items that ten lack one modality alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_set, 'NUM_ITEMS', 100)
        return small_set.write_small_set(folder)
