"""A finished run on the small set, with ids and names as a source would have them; used by the tests of what is taken
out of one."""

from __future__ import annotations

from pathlib import Path

import torch
from small_set import NUM_ITEMS, NUM_USERS, write_masks, write_small_set

from dgmrec_pyg.inference import FinishedRun
from dgmrec_pyg.run import main
from dgmrec_pyg.schema import missing_mask

UNTRAINED = ('popularity', 'itemknn')
USER_IDS = [f'u{user:03d}' for user in range(NUM_USERS)]
ITEM_IDS = [f'i{item:03d}' for item in range(NUM_ITEMS)]


def make_run(folder: Path, *arguments: str, model: str = 'dgmrec', raw_ids: bool = True) -> Path:
    """Trains a model for two epochs; returns the run directory ``folder/run``. The set is ``folder/tiny``."""
    tiny = write_small_set(folder / 'tiny')
    write_masks(tiny, 0.4)
    if raw_ids:
        users = ''.join(f'{number},{name}\n' for number, name in enumerate(USER_IDS))
        items = ''.join(f'{number},{name},Item no. {number}\n' for number, name in enumerate(ITEM_IDS))
        (tiny / 'users.csv').write_text('userID,user\n' + users, encoding='utf-8')
        (tiny / 'items.csv').write_text('itemID,asin,name\n' + items, encoding='utf-8')
    settings = [] if model in UNTRAINED else ['--set', 'hidden_channels=8']
    assert main(['--root', str(folder), '--dataset', 'tiny', '--model', model, '--output', str(folder / 'run'),
                 '--epochs', '2', '--quiet', *settings, *arguments]) == 0
    return folder / 'run'


def item_that_lacks(run: FinishedRun, *modalities: str) -> int:
    """The number of the first item that lacks these modalities and has the others."""
    lacks = [missing_mask(run.data, m) == (m in modalities) for m in ('image', 'text')]
    return int(torch.stack(lacks).all(dim=0).nonzero()[0])
