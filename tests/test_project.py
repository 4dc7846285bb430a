"""What holds for the project as a whole, whichever module is changed."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dgmrec_pyg
from dgmrec_pyg.errors import EXTRAS

PACKAGE = Path(dgmrec_pyg.__file__).parent
MODULES = sorted(PACKAGE.rglob('*.py'))
LIBRARIES_OF_OGB_AND_PYG = {'pandas', 'requests', 'scikit-learn', 'scipy'}  # what these two install themselves

SHOW_HELP = """
import runpy, sys
MODULE = sys.argv[1]
sys.argv = ['dgmrec', '--help']
try:
    runpy.run_module(MODULE, run_name='__main__')
except SystemExit as end:
    print(*sorted(module for module in sys.modules if '.' not in module), file=sys.stderr)
    sys.exit(end.code)
"""


def distribution() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution('dgmrec-pyg')
    except importlib.metadata.PackageNotFoundError:
        pytest.skip('dgmrec-pyg is not installed')


def normalized(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def imported_libraries(tree: ast.AST) -> Iterator[str]:
    """The top-level names that a module imports, its own package and the standard library left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        else:
            continue
        yield from {name.split('.')[0] for name in names} - sys.stdlib_module_names - {'dgmrec_pyg'}


def is_unsafe_call(call: ast.Call) -> bool:
    """Calls that ruff's rules let through: pickles that run code, and a device written into the code."""
    name = ast.unparse(call.func)
    flags = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    return ((name == 'torch.load' and flags.get('weights_only') != 'True')
            or (name in ('np.load', 'numpy.load') and flags.get('allow_pickle', 'False') != 'False')
            or name.endswith('.cuda'))


def unsafe_calls(source: str) -> list[int]:
    return [node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and is_unsafe_call(node)]


def test_version_is_the_installed_one() -> None:
    assert distribution().version == dgmrec_pyg.__version__


def test_every_imported_library_is_a_declared_dependency() -> None:
    needs = distribution().requires or []
    declared = {normalized(re.split(r'[^\w.-]', need)[0]) for need in needs} | LIBRARIES_OF_OGB_AND_PYG
    sources = importlib.metadata.packages_distributions()
    undeclared = [
        f'{path.relative_to(PACKAGE)}: {library}'
        for path in MODULES
        for library in imported_libraries(ast.parse(path.read_text(encoding='utf-8')))
        if declared.isdisjoint({normalized(name) for name in sources.get(library, [library])})
    ]
    assert undeclared == []


def test_each_extra_brings_its_libraries() -> None:
    needs = [re.split(r'[^\w.-]', need)[0] + need.partition(';')[2] for need in distribution().requires or []]
    packages = importlib.metadata.packages_distributions()
    installed = EXTRAS.keys() & packages.keys()
    assert installed
    for library in installed:
        assert any(f'{name} extra == "{EXTRAS[library]}"' in needs for name in packages[library]), library


def test_all_hints_to_install_name_an_extra() -> None:
    benchmarks = sorted((PACKAGE.parent / 'benchmarks').glob('*.py'))
    assert [path.name for path in [*MODULES, *benchmarks] if 'pip install' in path.read_text(encoding='utf-8')] == [
        'errors.py']


@pytest.mark.parametrize('command', ['run', 'recommend', 'export', 'info', 'demo'])
def test_help_answers_without_heavy_libraries(command: str) -> None:
    answer = subprocess.run([sys.executable, '-c', SHOW_HELP, f'dgmrec_pyg.{command}'],
                            capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith(f'usage: python -m dgmrec_pyg.{command} ')
    # PyG imports pandas wherever pandas is installed, so neither may be imported before arguments are read.
    heavy = {'pandas', 'ogb', 'matplotlib', 'torch', 'torch_geometric', 'optuna', 'tensorboard', 'argcomplete'}
    assert heavy.isdisjoint(answer.stderr.split())


@pytest.mark.parametrize(('source', 'expected'), [
    ('torch.load(path)', [1]),
    ('torch.load(path, weights_only=False)', [1]),
    ('torch.load(path, weights_only=True)', []),
    ('np.load(path, allow_pickle=True)', [1]),
    ('np.load(path)', []),
    ('x = 1\nx.cuda()', [2]),
    ('torch.cuda.is_available()', []),
])
def test_unsafe_calls_are_recognized(source: str, expected: list[int]) -> None:
    assert unsafe_calls(source) == expected


def test_no_module_makes_unsafe_calls() -> None:
    found = {str(path.relative_to(PACKAGE)): unsafe_calls(path.read_text(encoding='utf-8')) for path in MODULES}
    assert {name: lines for name, lines in found.items() if lines} == {}
