"""The README's Python code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

README = (Path(__file__).resolve().parent.parent / 'README.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'```python\n(.*?)```', README, flags=re.DOTALL)


@pytest.mark.parametrize('code', BLOCKS)
def test_python_in_the_readme_runs(code: str) -> None:
    names: dict[str, object] = {}
    exec(compile(code, 'README.md', 'exec'), names)  # noqa: S102 (our own README)
    scores = names['scores']
    assert isinstance(scores, torch.Tensor)
    assert scores.isfinite().all()


def test_the_readme_has_code() -> None:
    assert BLOCKS
