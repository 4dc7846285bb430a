"""The same numbers again, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dgmrec_pyg.errors import UserError

_WORKSPACE = 'CUBLAS_WORKSPACE_CONFIG'


@contextmanager
def deterministic(enabled: bool = True) -> Iterator[None]:
    """Lets PyTorch, and PyG with it, use only algorithms that give the same bits each time.

    CUDA's matrix products need a fixed workspace for it, which counts only before the first of them in a process.
    On CPU the order in which sums are taken depends on the number of threads, so that must be the same, too.

    Args:
        enabled (bool): Whether to do anything. (default: :obj:`True`)

    Raises:
        UserError: If something is computed that has no such algorithm on the device.
    """
    if not enabled:
        yield
        return
    before = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
              torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    os.environ.setdefault(_WORKSPACE, ':4096:8')
    try:
        _switch(True, False, True, False)
        yield
    except RuntimeError as error:
        if 'deterministic' not in str(error):
            raise
        reason = ' '.join(str(error).split())
        raise UserError(f'--deterministic cannot be kept ({reason:.160}); leave it out or take --device cpu') from error
    finally:
        _switch(*before)


def _switch(algorithms: bool, warn_only: bool, cudnn: bool, benchmark: bool) -> None:
    torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
    torch.backends.cudnn.deterministic = cudnn
    torch.backends.cudnn.benchmark = benchmark
