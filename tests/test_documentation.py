"""The code of README and how-to pages: its names exist, its arguments fit, and the blocks run one after the other.

Cells of executed pages run where the documentation is built. The other blocks are fragments with names of their own,
such as ``system`` or ``frames``: :data:`PAGES` says what these are here, and which budgets are made small.
"""

import ast
import importlib
import inspect
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer

import bayesmol

ROOT = Path(__file__).parents[1]
INLINE = re.compile(r"`[^`\n]*experiments/(\w+)\.py (\w[\w-]*)")
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    """Contents of the fenced blocks of a language."""
    return re.findall(rf"^```{re.escape(language)}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.M | re.S)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def attribute(owner: Any, part: str) -> Any:
    """Attribute of a module or class; a module that is not loaded yet is."""
    if isinstance(owner, ModuleType) and not hasattr(owner, part):
        return importlib.import_module(f"{owner.__name__}.{part}")
    return getattr(owner, part)


def known_names(tree: ast.AST) -> dict[str, Any]:
    """What a block imports from bayesmol, by the name it has there."""
    found: dict[str, Any] = {"bm": bayesmol}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bayesmol"):
            module = importlib.import_module(node.module)
            found |= {alias.asname or alias.name: attribute(module, alias.name) for alias in node.names}
    return found


def resolved(node: ast.AST, names: dict[str, Any]) -> Any:
    """The object that a dotted name of bayesmol means; ``None`` for what starts elsewhere."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = resolved(node.value, names)
        return None if owner is None or not isinstance(owner, ModuleType | type) else attribute(owner, node.attr)
    return None


def checked(source: str) -> int:
    """Resolve all dotted names of bayesmol in a block and bind the arguments of their calls; how many calls."""
    tree, calls = ast.parse(source), 0
    names = known_names(tree)
    for node in ast.walk(tree):
        resolved(node, names)
        if isinstance(node, ast.Call) and callable(target := resolved(node.func, names)):
            starred = any(isinstance(part, ast.Starred) for part in node.args) or any(
                k.arg is None for k in node.keywords
            )
            if not starred:
                inspect.signature(target).bind(*node.args, **{k.arg: k.value for k in node.keywords})
                calls += 1
    return calls


@pytest.mark.parametrize("path", FILES, ids=name)
def test_names_exist_and_arguments_fit(path):
    for source in blocks(path, "python") + blocks(path, "{code-cell}"):
        checked(source)


@pytest.mark.parametrize("wrong", ["bm.flows.Flows", "bm.certify(levels=0.9)", "from bayesmol.data import loads"])
def test_a_wrong_name_is_found(wrong):
    assert checked("bm.certify(model, calibration, level=0.9)") == 1
    with pytest.raises((AttributeError, TypeError, ImportError)):
        checked(wrong)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_commands_exist(path):
    from bayesmol.cli import app

    commands = typer.main.get_command(app).commands
    for line in "".join(blocks(path, "bash")).splitlines():
        words = shlex.split(line.rpartition("&& ")[2], comments=True)
        if words and Path(words[0]).name == "bayesmol":
            known = {option for parameter in commands[words[1]].params for option in parameter.opts}
            assert {word for word in words if word.startswith("-")} <= known, line
    text = path.read_text(encoding="utf-8")
    for script, command in re.findall(r"^python experiments/(\w+)\.py (\w[\w-]*)", text, re.M) + INLINE.findall(text):
        parts = (ROOT / "experiments").glob(f"{script}*.py")
        source = "".join(part.read_text(encoding="utf-8") for part in parts)
        assert f'"{command}"' in source or f"def {command.replace('-', '_')}(" in source, (script, command)


@dataclass(frozen=True)
class Page:
    """How the blocks of a page run here: what comes before them, and what is replaced to make budgets small."""

    path: str
    before: str = ""
    edits: dict[str, str] = field(default_factory=dict)
    slow: bool = True


SMALL = {"bm.potentials.BayesianACE()": "small"}
TRAJECTORIES = {
    'bm.data.read_trajectories("run*.xtc", topology="protein.pdb", features=bm.representation.torsions)': "runs",
    "states=100": "states=20",
}
PAGES = [
    Page("docs/howto/data.md", 'bm.data.write("train.xyz", ethanol[:1000])', slow=False),
    Page("docs/howto/calculator.md", 'bm.save(certified, "ethanol.bm")', {"run(1000)": "run(3)"}, slow=False),
    Page(
        "docs/howto/scale_out.md",
        "import pathlib\n"
        'bm.save(model, "model.bm")\n'
        'for k in range(2):\n    bm.data.write(f"part-{k}.xyz", ethanol[20 * k : 20 * k + 20])\n'
        'paths = sorted(map(str, pathlib.Path().glob("part-*.xyz")))\n'
        "hash_of = len",
        {"n_jobs=2": "n_jobs=1", "[:1_000_000]": "", "size=10": "size=3"},
        slow=False,
    ),
    Page(
        "docs/howto/acquisition.md",
        "from types import SimpleNamespace\ncampaign = SimpleNamespace(run=print)",
        slow=False,
    ),
    Page("docs/howto/noisy_labels.md", edits=SMALL),
    Page(
        "docs/howto/applicability.md",
        "from ase.md.verlet import VelocityVerlet\n"
        "atoms.calc = certified.calculator()\ndynamics = VelocityVerlet(atoms, 0.1)\n"
        "scores_of_a_trajectory = torch.rand(4, 4000, generator=torch.Generator().manual_seed(0))",
    ),
    Page(
        "docs/howto/kinetics.md",
        "runs = bm.data.load_trajectories('alanine-dipeptide')\nheld_out = new = runs",
        TRAJECTORIES,
    ),
]
STATIC = {  # names and arguments are checked, but the blocks take minutes or need files that do not ship: not run here
    "README.md",
    "docs/howto/across_scales.md",
    "docs/howto/boltzmann_densities.md",
    "docs/howto/calibration.md",
    "docs/howto/existing_potentials.md",
    "docs/howto/posteriors.md",
    "docs/howto/scorecard.md",
    "docs/howto/wavefunction_labels.md",
    "docs/howto/wavefunctions.md",
    "docs/tutorials/boltzmann.md",
    "docs/tutorials/wavefunctions.md",
}


def test_every_page_with_blocks_is_run():
    pages = {name(path) for path in FILES if blocks(path, "python")}
    assert pages == {page.path for page in PAGES} | STATIC


@pytest.fixture(scope="module")
def story():
    """Frames of ethanol, a small potential of a few of them, certified."""
    names: dict[str, Any] = {"bm": bayesmol, "torch": torch}
    exec(  # the names that the pages share
        "from bayesmol.potentials import MixingSchedule\n"
        "ethanol = bm.data.load('rmd17/ethanol')\n"
        "train, calibration, test = ethanol.split(12, 60, 12)\n"
        "small = bm.potentials.BayesianACE(\n"
        "    cutoffs=(4.0,), channels=(8, 8, 4), degrees=(3, 3, 2), mixing=MixingSchedule(steps=0)\n"
        ")\n"
        "model = small.fit(train, seed=0)\n"
        "certified = bm.certify(model, calibration, domain=bm.applicability.Domain(level=0.1))\n"
        "structures = pool = test.structures\n",
        names,
    )
    return names


@pytest.mark.filterwarnings("ignore")  # what a reader would see is not what is tested here
@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.path, marks=[pytest.mark.slow] if page.slow else []) for page in PAGES]
)
def test_blocks_run(page, story, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = story | {"atoms": story["test"].structures.to_ase()[0]}
    exec(page.before, names)
    for source in blocks(ROOT / page.path, "python"):
        for old, new in page.edits.items():
            source = source.replace(old, new)
        exec(compile(source, page.path, "exec"), names)
