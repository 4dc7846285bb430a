"""Times one version in a process of its own, so that its peak memory is its own; started by ``speed.py``.

It takes a :class:`Task` as JSON and prints what it measured as JSON.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from statistics import median
from typing import IO, Any, cast

import torch
from shapes import Shape, make_set
from textbook import TextbookDGMRec
from textbook_losses import info_nce
from textbook_training import TextbookTrainer, evaluate
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.command_line import run_command
from dgmrec_pyg.config import DGMRecConfig, TrainingConfig
from dgmrec_pyg.experiment import build_model, make_trainer, resolve_device, resolve_settings
from dgmrec_pyg.loading import RunSettings, load_data
from dgmrec_pyg.measuring import evaluators
from dgmrec_pyg.schema import INTERACTS, ITEM, USER, item_features, modality_names, training_edges, without_features
from dgmrec_pyg.training import BPRSampler, Trainer
from dgmrec_pyg.training.adam import make_state, tables_stepped_by_rows
from dgmrec_pyg.training.finite import LossWatch

UNIT_ROWS, UNIT_COLUMNS, UNIT_TEMPERATURE = 2048, 64, 0.2
UNIT_EVERY = 10  # epochs between two units on the way to a given recall
WARM_UP_STEPS = 3
PROFILED_STEPS = 10
METRIC = 'recall@20'


@dataclass
class Task:
    """What a process is to measure.

    Attributes:
        kind (str): ``'parts'``, ``'time_to'``, ``'profile'`` or ``'units'``.
        version (str): ``'package'`` or ``'textbook'``.
        run (dict): What :class:`~dgmrec_pyg.loading.RunSettings` takes; its set names the preset, too.
        shape (dict, optional): Makes a :class:`~shapes.Shape` in place of the run's set.
        epochs (int): Timed epochs, after one that is not.
        repeats (int): Of everything else; medians are taken.
        steps (int, optional): The only steps of an epoch to run; the epoch is then extrapolated.
        unit_repeats (int): Products per unit.
        threads (int, optional): CPU threads.
        recall (float): The validation Recall@20 to reach.
        trace (str): Where the profiler writes its trace.
    """

    kind: str
    version: str = 'package'
    run: dict[str, Any] = field(default_factory=dict)
    shape: dict[str, Any] | None = None
    epochs: int = 2
    repeats: int = 5
    steps: int | None = None
    unit_repeats: int = 15
    threads: int | None = None
    recall: float = 0.0
    trace: str = ''


class FirstSteps:
    """The first batches of a sampler's epochs.

    Attributes:
        seconds (float): What the sampler took for the whole epoch, all of it before the first batch.
    """

    def __init__(self, sampler: BPRSampler, steps: int) -> None:
        self.sampler = sampler
        self.steps = min(steps, len(sampler))
        self.generator = sampler.generator
        self.seconds = 0.0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        batches, start = iter(self.sampler), time.perf_counter()
        first = next(batches)
        self.seconds = time.perf_counter() - start
        return chain([first], islice(batches, self.steps - 1))


class Package:
    """The package's model, trained by its trainer."""

    def __init__(self, data: HeteroData, config: DGMRecConfig, training: TrainingConfig, seed: int,
                 device: torch.device) -> None:
        self.training, self.seed = training, seed
        self.model = build_model(data, 'dgmrec', config, seed, device)
        self.data = data = without_features(data)  # as a run does
        self.validation = evaluators(data, device)[0]
        self.steps_per_epoch = len(make_trainer(data, self.model, training, seed).sampler)
        self.sampling_seconds = 0.0

    def train(self, epochs: int, steps: int | None) -> list[float]:
        """Trains epochs, or the first steps of each, and returns their seconds."""
        # Validation, which is timed by itself, comes after the last epoch only.
        training = self.training.replace(epochs=epochs, eval_every=epochs)
        self.trainer = make_trainer(self.data, self.model, training, self.seed)
        if steps is None:
            return [record['train_seconds'] for record in self.trainer.fit().records]
        self.trainer.sampler = sampler = FirstSteps(self.trainer.sampler, steps)
        records = self.trainer.fit().records
        self.sampling_seconds = sampler.seconds
        return [record['train_seconds'] for record in records]

    def parts(self) -> dict[str, Callable[[], object]]:
        """What is timed beside epochs."""
        model, validation = self.model, self.validation
        return {
            'evaluation': lambda: validation.metrics(validation.rank(model.scorer())),
            'generation': model.generate_missing,
            'refresh': model.refresh_graphs,
            'item_graphs': lambda: model.item_graphs.build({m: x.detach() for m, x in model.feature_tables.items()}),
            'start_epoch': lambda: model.start_epoch(1),
        }


class Textbook:
    """The textbook's model, trained by its trainer."""

    def __init__(self, data: HeteroData, config: DGMRecConfig, training: TrainingConfig, seed: int,
                 device: torch.device) -> None:
        self.data = data = copy.copy(data).to(device)  # a shallow copy: on CPU the tensors are shared
        self.training, self.seed = training, seed
        self.model = TextbookDGMRec(data, config, torch.Generator().manual_seed(seed))
        self.trainer = TextbookTrainer(self.model, training_edges(data), training, seed)
        self.steps_per_epoch = len(self.trainer)
        self.sampling_seconds = 0.0  # drawn step by step

    def train(self, epochs: int, steps: int | None) -> list[float]:
        """Trains epochs, or the first steps of each, and returns their seconds."""
        device = training_edges(self.data).device
        return [timed(lambda epoch=epoch: self.trainer.train_epoch(epoch, steps), device)
                for epoch in range(1, epochs + 1)]

    def parts(self) -> dict[str, Callable[[], object]]:
        """What is timed beside epochs."""
        model, train = self.model, training_edges(self.data)
        labels = self.data[INTERACTS].val_edge_label_index
        return {
            'evaluation': lambda: evaluate(*model.embed(), train, labels),
            'generation': model.generate_missing,
            'refresh': model.refresh_graphs,
            'item_graphs': model.build_graphs,
            'start_epoch': lambda: model.start_epoch(1, self.trainer.club_optimizer),
        }


VERSIONS = {'package': Package, 'textbook': Textbook}


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Returns the seconds that a call takes, what it left running on the device included."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def measure_unit(device: torch.device, repeats: int) -> float:
    """Returns the seconds of a naive InfoNCE of 2,048 x 64, forward and backward, the yardstick of everything else."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, UNIT_ROWS, UNIT_COLUMNS, generator=generator).to(device)
    a, b = (row.clone().requires_grad_() for row in rows)

    def step() -> None:
        torch.autograd.grad(info_nce(a, b, UNIT_TEMPERATURE), (a, b))

    for _ in range(2):
        timed(step, device)
    return median(timed(step, device) for _ in range(repeats))


class UnitClock:
    """Measures units in a process of its own, which waits in between.

    In a process that has held large tensors the same product is up to 1.6 times as fast, because the allocator keeps
    its memory: versions measured beside their own model would be counted in different units.
    """

    def __init__(self, task: Task) -> None:
        units = asdict(task) | {'kind': 'units'}
        command = [sys.executable, __file__, json.dumps(units)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE,  # noqa: S603
                                         stdout=subprocess.PIPE, text=True)
        self.seconds: list[float] = []

    def measure(self) -> None:
        """Measures one unit more."""
        asks, answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        print('measure', file=asks, flush=True)
        line = answers.readline()
        if not line:
            raise RuntimeError(f'the process that measures units ended with code {self._process.wait()}')
        self.seconds.append(float(line))

    def stop(self) -> list[float]:
        """Ends the process and returns all units measured, in seconds."""
        self._process.communicate()
        return self.seconds


def answer_with_units(task: Task) -> None:
    """Prints one unit, in seconds, for each line that comes in."""
    device = resolve_device(task.run['device'])
    measure_unit(device, task.unit_repeats)  # the first one warms up
    for _ in sys.stdin:
        print(measure_unit(device, task.unit_repeats), flush=True)


def status_bytes(name: str) -> int | None:
    """Returns a line of Linux's /proc/self/status in bytes: ``VmRSS`` (resident now) or ``VmHWM`` (at its peak)."""
    try:
        lines = Path('/proc/self/status').read_text(encoding='utf-8').splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f'{name}:')), None)


def peak_bytes(device: torch.device) -> int | None:
    """Returns the peak memory so far, of the GPU where that is used."""
    return torch.cuda.max_memory_allocated(device) if device.type == 'cuda' else status_bytes('VmHWM')


def load(task: Task) -> tuple[HeteroData, DGMRecConfig, TrainingConfig]:
    """Returns the set and its settings."""
    run = RunSettings(**{**task.run, 'settings': tuple(task.run.get('settings', ()))})
    data = load_data(run) if task.shape is None else make_set(Shape(**task.shape), run.seed)
    return data, *resolve_settings(run)


def measure_parts(task: Task) -> dict[str, Any]:
    """Measures the peak memory of a first epoch (of the textbook version's first steps), then the time of every part,
    with the unit in between."""
    device = resolve_device(task.run['device'])
    libraries = status_bytes('VmRSS') if device.type == 'cpu' else 0
    data, config, training = load(task)
    peaks = {'set': peak_bytes(device)}
    version = VERSIONS[task.version](data, config, training, task.run['seed'], device)
    sizes_of_set = sizes(data)
    del data  # The package's model trains without it.
    peaks['model'] = peak_bytes(device)
    version.train(1, task.steps if task.version == 'package' else WARM_UP_STEPS)
    peaks['training'] = peak_bytes(device)
    parts = version.parts()
    for name in ('refresh', 'evaluation'):
        parts[name]()
        peaks[name] = peak_bytes(device)

    units = UnitClock(task)
    units.measure()
    seconds = {}
    warm_up = 1 if task.version == 'package' else 0  # its trainer is a new one; the textbook's has taken steps
    epochs = version.train(task.epochs + warm_up, task.steps)[warm_up:]
    for name, part in parts.items():
        units.measure()
        seconds[name] = median(timed(part, device) for _ in range(task.repeats))
    units.measure()
    steps = version.steps_per_epoch if task.steps is None else min(task.steps, version.steps_per_epoch)
    fixed = seconds.pop('start_epoch') + version.sampling_seconds
    seconds['epoch'] = median(epochs)
    if steps < version.steps_per_epoch:
        seconds['epoch'] = fixed + max(seconds['epoch'] - fixed, 0.0) * version.steps_per_epoch / steps
    return {'seconds': seconds, 'unit_seconds': units.stop(), 'peak_bytes': peaks['evaluation'],
            'peak_bytes_after': peaks, 'library_bytes': libraries, 'steps_timed': steps,
            'steps_per_epoch': version.steps_per_epoch, 'set': sizes_of_set,
            'config': config.to_dict(), 'training': training.to_dict(), 'device': device_name(device),
            'threads': torch.get_num_threads()}


def measure_time_to(task: Task) -> dict[str, Any]:
    """Trains until validation has a given recall, or until training ends by itself."""
    device = resolve_device(task.run['device'])
    data, config, training = load(task)
    units = UnitClock(task)
    units.measure()

    class Reached(Exception):
        """Ends training."""

    def look(record: dict[str, Any]) -> None:
        if record['epoch'] % UNIT_EVERY == 0:
            units.measure()
        if record['val'] is not None and record['val'][METRIC] >= task.recall:
            raise Reached

    reached, start = False, time.perf_counter()
    model = build_model(data, 'dgmrec', config, task.run['seed'], device)
    data = without_features(data)
    trainer = make_trainer(data, model, training, task.run['seed'], on_epoch=look)
    built = time.perf_counter() - start
    try:
        trainer.fit()
    except Reached:
        reached = True
    fit = trainer.fit_state
    units.measure()
    return {'recall': task.recall, 'reached': reached, 'epochs': fit.epoch, 'seconds': built + fit.seconds,
            'best_recall': fit.best_val[METRIC], 'unit_seconds': units.stop()}


def profile(task: Task) -> dict[str, Any]:
    """Traces some training steps and names the dearest operations."""
    device = resolve_device(task.run['device'])
    data, config, training = load(task)
    model = build_model(data, 'dgmrec', config, task.run['seed'], device)
    data = without_features(data)
    trainer = make_trainer(data, model, training, task.run['seed'])
    batches = list(islice(trainer.sampler, PROFILED_STEPS))
    train_steps(trainer, batches[:WARM_UP_STEPS])
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == 'cuda':
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        train_steps(trainer, batches)
        synchronize(device)
    profiler.export_chrome_trace(task.trace)
    own_time = 'self_device_time_total' if device.type == 'cuda' else 'self_cpu_time_total'
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, own_time))
    whole = sum(getattr(event, own_time) for event in events)
    return {
        'steps': len(batches),
        'operations': [{'name': event.key, 'milliseconds': getattr(event, own_time) / 1000 / len(batches),
                        'share': getattr(event, own_time) / whole, 'calls': event.count / len(batches)}
                       for event in events[:10]],
        'copies': {event.key: event.count for event in events if 'HtoD' in event.key or 'DtoH' in event.key},
    }


def train_steps(trainer: Trainer, batches: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    """Takes some steps as the trainer takes them."""
    make_state(trainer.optimizer)
    watch = LossWatch()
    with tables_stepped_by_rows(trainer.model, trainer.optimizer):
        for batch in batches:
            trainer.step(batch, watch)


def sizes(data: HeteroData) -> dict[str, Any]:
    """Returns the sizes of a set."""
    return {'num_users': data[USER].num_nodes, 'num_items': data[ITEM].num_nodes,
            'num_train': training_edges(data).size(1),
            'features': {m: item_features(data, m).size(1) for m in modality_names(data)}}


def device_name(device: torch.device) -> str:
    """Returns the name of the GPU, or ``'cpu'``."""
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'


def main() -> int:
    """Does the task that the argument describes."""
    return run_command(_run, None)


def _run(argv: list[str]) -> int:
    task = Task(**json.loads(argv[0]))
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    if task.kind == 'units':
        answer_with_units(task)
        return 0
    work = {'parts': measure_parts, 'time_to': measure_time_to, 'profile': profile}[task.kind]
    print(json.dumps(work(task)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
