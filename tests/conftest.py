"""Fixtures that several test files use."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import HeteroData

from dgmrec_pyg.schema import build_data

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='session', autouse=True)
def heed_interrupts() -> None:
    """A shell starts what runs in the background with Ctrl-C ignored, and children inherit it; tests send it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session')
def real_data_root() -> Path:
    """The folder of the real sets (``DGMREC_DATA``, else beside the repository); skips where there is none."""
    root = Path(os.environ.get('DGMREC_DATA', REPOSITORY.parent / 'shared' / 'data'))
    if not (root / 'tiktok' / 'tiktok.inter').is_file():
        pytest.skip(f"no real data under '{root}' (set DGMREC_DATA)")
    return root


def make_data(num_users: int = 30, num_items: int = 40, seed: int = 0, missing_rate: float = 0.3,
              modalities: dict[str, int] | None = None) -> HeteroData:
    """A small random set: distinct pairs split into train, validation and test; every user has training edges."""
    generator = torch.Generator().manual_seed(seed)
    modalities = modalities or {'audio': 6, 'image': 12, 'text': 8}
    order = torch.rand(num_users, num_items, generator=generator).argsort(dim=1)
    users = torch.arange(num_users)

    def pairs(first: int, last: int) -> torch.Tensor:
        return torch.stack([users.repeat_interleave(last - first), order[:, first:last].reshape(-1)])

    return build_data(
        num_users=num_users,
        num_items=num_items,
        edge_index=pairs(0, 6),
        val_edge_label_index=pairs(6, 8),
        test_edge_label_index=pairs(8, 10),
        features={name: torch.randn(num_items, size, generator=generator) for name, size in modalities.items()},
        missing={name: torch.rand(num_items, generator=generator) < missing_rate for name in modalities},
    )


@pytest.fixture
def small_data() -> HeteroData:
    """30 users, 40 items, modalities audio, image and text with about 30 % of each missing."""
    return make_data()


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of DGMRec on the small set with ids and names; the set is ``tiny`` beside it."""
    from finished_run import make_run

    return make_run(tmp_path_factory.mktemp('finished'))


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    """Chromium without a window, which writes down what it asks the network for; skips where Chromium, its driver or
    selenium is not installed."""
    webdriver = pytest.importorskip('selenium.webdriver')
    paths = [shutil.which('chromium') or shutil.which('google-chrome'), shutil.which('chromedriver')]
    if None in paths:
        pytest.skip('Chromium or its driver is not installed')
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for argument in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(paths[1]))
    yield driver
    driver.quit()
