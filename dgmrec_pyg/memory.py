"""How much memory a run needs, how much there is, and a refusal where that does not suffice.

The estimate adds up what is known from the sizes of the data and from the settings. Its constants were measured as
peaks of processes on CPU; see ``benchmarks/README.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dgmrec_pyg.config import DGMRecConfig, Settings, TrainingConfig
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.regression.item_columns import MOST_COLUMNS

LIBRARY_BYTES = 430 * 10**6
"""What Python, PyTorch, PyG and, where it is installed, pyarrow take on CPU before anything is loaded."""

_FLOAT = 4
_RANKED = 50  # items kept of each user's ranking
_CONTRASTED_ROWS = 256  # at a time, in info_nce_loss and, on CPU, in sampled_softmax_loss
_CUDA_LOGITS = 2**26  # at a time, in sampled_softmax_loss


@dataclass(frozen=True)
class DataSizes:
    """The sizes of a set that memory depends on.

    Attributes:
        num_users (int): Number of users.
        num_items (int): Number of items.
        num_train (int): Number of training interactions.
        num_labels (int): Number of validation and test interactions.
        features (Mapping[str, int]): Size of the features by modality.
        has_new_items (bool): Whether there are held-out new items.
    """

    num_users: int
    num_items: int
    num_train: int
    num_labels: int = 0
    features: Mapping[str, int] = field(default_factory=dict)
    has_new_items: bool = False


@dataclass(frozen=True)
class MemoryEstimate:
    """What a run is expected to hold at its peak.

    Attributes:
        parts (dict): Bytes by what they are for, on the device of the model.
        host_bytes (int): What the host needs beside a GPU; 0 on CPU, where all is in :attr:`parts`.
        advice (str): What lowers the largest part.
    """

    parts: Mapping[str, int]
    host_bytes: int = 0
    advice: str = 'take a smaller set'

    @property
    def total(self) -> int:
        """All parts together, in bytes."""
        return sum(self.parts.values())


def estimate_memory(sizes: DataSizes, config: Settings, training: TrainingConfig,
                    device: str | torch.device = 'cpu') -> MemoryEstimate:
    """Estimates the peak memory of training and evaluating a model.

    The estimate was measured for DGMRec. For any other model it is a lower figure: the set, embeddings of users and
    items with what training keeps of them, and a batch.

    Args:
        sizes (DataSizes): The set.
        config (Settings): The model's settings.
        training (TrainingConfig): The training settings.
        device (str or torch.device): Where the model is. (default: ``'cpu'``)
    """
    given = _FLOAT * sizes.num_items * sum(sizes.features.values())
    parts = {'features': 0, 'embeddings': _embedding_bytes(sizes, config), 'interactions': _edge_bytes(sizes),
             'item graphs': 0, 'batch': _batch_bytes(sizes, config, training, torch.device(device))}
    building = given
    if isinstance(config, DGMRecConfig):
        building = _building_bytes(sizes, config)
        parts['features'] = _table_bytes(sizes, config)
        parts['item graphs'] = 250 * config.knn_k * sizes.num_items * len(sizes.features)
    regression = _regression_bytes(sizes, config)  # On the host, whatever the device.
    if torch.device(device).type == 'cpu':
        if isinstance(config, DGMRecConfig):
            parts['features'] = max(parts['features'] + regression, building)
        parts['features'] += given
        return MemoryEstimate({'libraries': LIBRARY_BYTES, **parts}, 0, _advice(parts, sizes, config, training))
    placing = 0
    if isinstance(config, DGMRecConfig) and sizes.has_new_items:
        placing = _FLOAT * sizes.num_items * (max(_widths(sizes, config)) + _placing_columns(_widths(sizes, config)))
    labels = 64 * (sizes.num_train + sizes.num_labels)
    host = LIBRARY_BYTES + given + max(building, given + regression, placing) + labels
    return MemoryEstimate(parts, host, _advice(parts, sizes, config, training))


def _widths(sizes: DataSizes, config: DGMRecConfig) -> list[int]:
    """The columns of a model's feature tables."""
    return [min(width, config.feature_channels or width) for width in sizes.features.values()]


def _table_bytes(sizes: DataSizes, config: DGMRecConfig) -> int:
    """A model's feature tables and the best epoch's; where they are trained, also Adam's two, and a gradient where
    some rows alone are compared with decoded ones (else it is formed and used up by blocks); with new items, the old
    ones' rows, of which item graphs are made, or what places new ones."""
    widths = _widths(sizes, config)
    selects = sizes.has_new_items or config.reconstruction_items != 'all'
    whole_gradient = config.generate_from == 'encodings' and config.reconstruction_weight > 0 and selects
    tables = 4 + whole_gradient if config.train_features else 2
    copies = _placing_columns(widths) if sizes.has_new_items else 0
    return _FLOAT * sizes.num_items * (tables * sum(widths) + copies)


def _placing_columns(widths: list[int]) -> int:
    """The columns of what places new items among old ones: a modality's centered features beside the few columns of
    all, or these twice."""
    narrow = sum(min(width, MOST_COLUMNS) for width in widths)
    return max(max(widths, default=0) + narrow, 2 * narrow)


def _regression_bytes(sizes: DataSizes, config: Settings) -> int:
    """What the regression that generates features keeps, and one modality's features as filled."""
    if not isinstance(config, DGMRecConfig) or config.generate_from != 'features':
        return 0
    widths = _widths(sizes, config)
    columns = max(widths, default=0) + 2 * sum(min(width, MOST_COLUMNS) for width in widths) + MOST_COLUMNS
    return _FLOAT * sizes.num_items * columns


def _building_bytes(sizes: DataSizes, config: DGMRecConfig) -> int:
    """Features as filled in and the tables made of them; for one modality at a time the rows that are made narrow, or
    the old ones of a set with new items."""
    widths = _widths(sizes, config)
    copied = [width for width, own in zip(sizes.features.values(), widths, strict=True)
              if sizes.has_new_items or own < width]
    return _FLOAT * sizes.num_items * (sum(sizes.features.values()) + sum(widths) + max(copied, default=0))


def _embedding_bytes(sizes: DataSizes, config: Settings) -> int:
    """The id embeddings with gradient, Adam's two and the best epoch's, and what a forward pass keeps of all nodes."""
    row = _FLOAT * getattr(config, 'hidden_channels', 0)
    tables = (5 + 7) * (sizes.num_users + sizes.num_items)
    modalities = len(sizes.features) if isinstance(config, DGMRecConfig) else 0
    return row * (tables + modalities * (16 * sizes.num_items + sizes.num_users))


def _edge_bytes(sizes: DataSizes) -> int:
    """Interactions with their four adjacencies, and the rankings of all users."""
    return 400 * sizes.num_train + 100 * sizes.num_labels + 2 * 12 * _RANKED * sizes.num_users


def _batch_bytes(sizes: DataSizes, config: Settings, training: TrainingConfig, device: torch.device) -> int:
    """A batch's embeddings, a block of the products of its users and items where a loss contrasts them, and copies of
    its items' features where they are compared with decoded ones."""
    size = min(training.interactions_per_step(sizes.num_train), max(sizes.num_train, 1))
    rows = _FLOAT * getattr(config, 'hidden_channels', 0) * size
    if not isinstance(config, DGMRecConfig):
        return 12 * rows
    contrasted = min(size, config.contrastive_pairs or size)
    logits = _FLOAT * _CONTRASTED_ROWS * contrasted
    if device.type == 'cuda' and config.ranking_loss == 'softmax':
        logits = max(logits, _FLOAT * min(_CUDA_LOGITS, size * contrasted))
    features = 0
    compares = config.feature_generation_weight > 0 or (config.reconstruction_weight > 0
                                                        and config.reconstruction_items != 'all')
    if compares and config.generate_from == 'encodings':  # Else nothing is decoded.
        copies = 2 if config.train_features else 1  # With the copies' gradients.
        features = _FLOAT * copies * min(2 * size, sizes.num_items) * sum(_widths(sizes, config))
    return logits + 30 * rows * (1 + len(sizes.features)) + features


def _advice(parts: Mapping[str, int], sizes: DataSizes, config: Settings, training: TrainingConfig) -> str:
    advice = {
        'features': 'make features narrower (--set feature_channels=...), or',
        'embeddings': 'lower hidden_channels (--set hidden_channels=...), or',
        'item graphs': 'lower knn_k (--set knn_k=...), or',
        'batch': 'lower batch_size (--batch-size ...), or',
    }
    if getattr(config, 'train_features', False):
        advice['features'] = f"keep the features as they are (--set train_features=false), {advice['features']}"
    elif not hasattr(config, 'feature_channels'):
        advice['features'] = ''
    if training.interactions_per_step(sizes.num_train) > training.batch_size:
        advice['batch'] = 'take smaller batches, which makes epochs longer (--set max_steps=..., 0: no limit), or'
    return f'{advice[max(advice, key=lambda part: parts[part])]} take a smaller set'.strip()


def check_memory(estimate: MemoryEstimate, device: str | torch.device = 'cpu', what: str = 'this run') -> None:
    """Refuses what does not fit, to be called before anything of size is allocated.

    Args:
        estimate (MemoryEstimate): What :func:`estimate_memory` returned.
        device (str or torch.device): Where the model is to be. (default: ``'cpu'``)
        what (str): What needs it, as the subject of the message. (default: ``'this run'``)

    Raises:
        UserError: If the estimate is above what is available.
    """
    require_bytes(estimate.total, what, estimate.advice, device)
    if estimate.host_bytes:
        require_bytes(estimate.host_bytes, f'{what}, beside the GPU,', 'take a smaller set')


def require_bytes(needed: int, what: str, advice: str, device: str | torch.device = 'cpu') -> None:
    """Refuses what needs more memory than is available.

    Args:
        needed (int): What the whole process needs at its peak, in bytes.
        what (str): What needs it, as the subject of the message.
        advice (str): What the user can do.
        device (str or torch.device): Where it is needed. (default: ``'cpu'``)

    Raises:
        UserError: If there is less.
    """
    available = available_bytes(device)
    if available is not None and needed > available:
        raise UserError(f"{what} needs about {gigabytes(needed)} of memory on {torch.device(device).type}, but "
                        f'{gigabytes(available)} are available; {advice}')


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that memory did not suffice, on CPU or on CUDA.

    Args:
        error (BaseException): What was raised.
    """
    # On CPU, PyTorch has no class for it.
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and 'allocate' in str(error))


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns what is raised where memory does not suffice into a :class:`~dgmrec_pyg.errors.UserError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError('there is not enough memory for the model and its batches; lower hidden_channels or batch_size '
                        '(--set hidden_channels=... batch_size=...), or raise max_steps where it makes batches larger '
                        '(--set max_steps=...)') from error


def available_bytes(device: str | torch.device = 'cpu', root: Path = Path('/')) -> int | None:
    """Returns the memory that this process can have, what it has already included; :obj:`None` where the system does
    not say (other than Linux).

    On CPU that is what Linux says is available, or what the process's control groups still allow where that is less.

    Args:
        device (str or torch.device): Where. (default: ``'cpu'``)
        root (Path): Where the system's files are. (default: ``/``)
    """
    device = torch.device(device)
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    left = [*_group_bytes(root), *_table_values(root / 'proc/meminfo', 'MemAvailable:', 1024)]
    if not left:
        return None
    return min(left) + sum(_table_values(root / 'proc/self/status', 'VmRSS:', 1024))


def _group_bytes(root: Path) -> list[int]:
    """What each of the process's control groups, of version 1 or 2, still allows."""
    left = []
    for line in _lines(root / 'proc/self/cgroup'):
        _, controllers, path = line.split(':', 2)
        if controllers not in ('', 'memory'):
            continue
        mount = root / 'sys/fs/cgroup' / controllers
        names = ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file') if controllers else (
            'memory.max', 'memory.current', 'inactive_file')
        group = mount / path.lstrip('/')
        # A limit of any group above counts, too. Inside a container the path may be the host's, and only / be there.
        for folder in {mount, group, *(parent for parent in group.parents if mount in parent.parents)}:
            limit, usage = ([int(text) for text in _lines(folder / name) if text.isdigit()] for name in names[:2])
            if limit and usage:
                left.append(limit[0] - usage[0] + sum(_table_values(folder / 'memory.stat', names[2], 1)))
    return left


def _table_values(path: Path, name: str, unit: int) -> list[int]:
    """The number beside a name in one of the system's tables, in bytes; none where it is not there."""
    return [unit * int(line.split()[1]) for line in _lines(path) if line.split()[:1] == [name]]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding='utf-8').splitlines()
    except OSError:
        return []


def describe_memory(estimate: MemoryEstimate, device: str | torch.device = 'cpu') -> str:
    """Returns the estimate in a line, its parts and what is available.

    Args:
        estimate (MemoryEstimate): What :func:`estimate_memory` returned.
        device (str or torch.device): Where the model is to be. (default: ``'cpu'``)
    """
    parts = ', '.join(f'{name} {gigabytes(size)}' for name, size in estimate.parts.items() if size)
    available = available_bytes(device)
    known = 'unknown' if available is None else gigabytes(available)
    return (f'memory on {torch.device(device).type}: about {gigabytes(estimate.total)} at the peak ({parts}); '
            f'available: {known}')


def gigabytes(count: int) -> str:
    """Returns a number of bytes in gigabytes of 10^9 bytes, such as ``'1.74 GB'``."""
    return f'{count / 1e9:,.2f} GB'
