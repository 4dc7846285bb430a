"""What ``.ci/audit`` makes of the answers of pip-audit, for which a script stands in: they depend on the network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).resolve().parent.parent / '.ci' / 'audit'
ADVISORY = {'id': 'PYSEC-1', 'fix_versions': ['2']}


def audit(folder: Path, output: str, errors: str, code: int) -> subprocess.CompletedProcess[str]:
    (folder / 'output').write_text(output)
    (folder / 'errors').write_text(errors)
    program = folder / 'pip-audit'
    program.write_text(f'#!/bin/sh\ncat "{folder}/output"\ncat "{folder}/errors" >&2\nexit {code}\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ['PATH']])
    return subprocess.run([str(AUDIT)], capture_output=True, text=True, check=False, env={**os.environ, 'PATH': path})


def report(**parts: object) -> str:
    return json.dumps({'dependencies': [{'name': 'numpy', 'version': '1', **parts}]})


@pytest.mark.parametrize(('output', 'errors', 'code', 'expected', 'shown'), [
    (report(vulns=[]), '', 0, 0, 'pip-audit: 1 of 1 packages looked up'),
    (report(vulns=[ADVISORY]), 'Found 1 known vulnerability', 1, 1, 'numpy 1: PYSEC-1 (fixed in: 2)'),
    (report(skip_reason='not found'), '', 0, 0, 'pip-audit skipped: its service knows none of the 1 packages'),
    ('', "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed", 1, 0, 'pip-audit skipped'),
    ('', 'requests.exceptions.ProxyError: Max retries exceeded', 1, 0, 'pip-audit skipped'),
    ('', '', 124, 0, 'pip-audit skipped'),
    ('', 'ERROR:pip_audit._cli:requirement file contains invalid specifier at line 2', 1, 1, 'invalid specifier'),
    ('{}', '', 0, 1, 'pip-audit failed (exit code 0)'),
], ids=['nothing', 'advisory', 'mirror', 'no connection', 'no proxy', 'too slow', 'invalid requirement', 'odd report'])
def test_what_is_passed_over_and_what_fails(tmp_path: Path, output: str, errors: str, code: int, expected: int,
                                            shown: str) -> None:
    answer = audit(tmp_path, output, errors, code)
    assert answer.returncode == expected, answer.stderr
    assert shown in (answer.stderr if 'skipped' not in shown and not output.startswith('{"') else answer.stdout)
