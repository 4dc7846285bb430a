"""The pool that runs the cells of benchmarks side by side."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pool
import pool_tasks
import pytest
import torch


def run(work: Any, tasks: list[Any], jobs: int, threads: int = 1) -> dict[Any, Any]:
    outcomes: dict[Any, Any] = {}
    pool.run_all(work, tasks, jobs, threads, outcomes.__setitem__)
    return outcomes


def test_one_job_runs_here_and_leaves_the_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    assert run(pool_tasks.tell_process, [1, 2], 1, 3) == {1: (os.getpid(), 3), 2: (os.getpid(), 3)}
    assert torch.get_num_threads() == before


def test_every_task_is_done_once_in_two_other_processes() -> None:
    found: list[tuple[int, Any]] = []
    pool.run_all(pool_tasks.tell_process, list(range(9)), 2, 3, lambda task, outcome: found.append((task, outcome)))
    assert sorted(task for task, _ in found) == list(range(9))
    processes = {process for _, (process, _) in found}
    assert os.getpid() not in processes
    assert len(processes) <= 2
    assert {threads for _, (_, threads) in found} == {3}


def test_a_killed_process_loses_no_more_than_what_was_running() -> None:
    outcomes = run(pool_tasks.die_at_three, list(range(8)), 2)
    lost = {task for task, outcome in outcomes.items() if outcome is None}
    assert 3 in lost
    assert len(lost) <= 2
    assert outcomes == {number: None if number in lost else number * number for number in range(8)}


def test_interrupt_ends_all_processes(tmp_path: Path) -> None:
    pool_tasks.interrupt_when_started(tmp_path, 2)
    with pytest.raises(KeyboardInterrupt):
        run(pool_tasks.wait_for_interrupt, [tmp_path, tmp_path, tmp_path], 2)
    for path in tmp_path.glob('started-*'):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name.partition('-')[2]), 0)
    assert not (tmp_path / 'slept').exists()
