"""A small set in MMRec's layout on disk; used by the tests of whole runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

NUM_USERS, NUM_ITEMS = 40, 30
INTERACTIONS = {0: 6, 1: 2, 2: 2}
"""Number of interactions of each user by split."""
SIZES = {'image': 8, 'text': 6}


def write_small_set(folder: Path, seed: int = 0) -> Path:
    """Writes a set in which users like items of their own group, and features tell the group; returns the folder."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    group = np.arange(NUM_ITEMS) % 2
    lines = ['userID\titemID\tx_label']
    for user in range(NUM_USERS):
        liking = generator.gumbel(size=NUM_ITEMS) + 2 * (group == user % 2)
        items = iter(np.argsort(-liking))
        lines += [f'{user}\t{next(items)}\t{split}' for split, count in INTERACTIONS.items() for _ in range(count)]
    (folder / f'{folder.name}.inter').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    for modality, size in SIZES.items():
        centers = generator.normal(size=(2, size))
        features = centers[group] + 0.3 * generator.normal(size=(NUM_ITEMS, size))
        np.save(folder / f'{modality}_feat.npy', features.astype(np.float32))
    return folder


def write_masks(folder: Path, ratio: float) -> dict[str, np.ndarray]:
    """Writes the mask file of a ratio: a third of these items lacks image, a third text, a third both."""
    lacking = np.random.default_rng(1).permutation(NUM_ITEMS)[:round(ratio * NUM_ITEMS)]
    masks = {modality: np.zeros(NUM_ITEMS, dtype=bool) for modality in SIZES}
    for position, item in enumerate(lacking):
        for modality in (('image',), ('text',), ('image', 'text'))[position % 3]:
            masks[modality][item] = True
    np.savez(folder / f'missing_{ratio}.npz', **masks)
    return masks
