"""The rules of docs/architecture: who may import whom, who owns a heavy library, how long a file is, what is lazy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bayesmol

ROOT = Path(bayesmol.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
TESTS = sorted(Path(__file__).parent.rglob("*.py"))

GROUND = {"errors", "typing", "units", "files", "checkpoints", "optional", "progress", "parallel", "inference.random"}
FAMILIES = {"potentials", "flows", "wavefunctions", "dynamics", "coarse_graining", "equations"}
BELOW = {"posterior", "data", "representation"}
MAY_IMPORT = {
    "errors": set(),
    "typing": set(),
    "files": {"errors"},
    "checkpoints": {"errors", "files"},
    "optional": {"errors"},
    "units": {"errors"},
    "progress": {"errors"},
    "parallel": {"errors", "progress"},
    "inference.random": {"errors"},
    "posterior": GROUND,
    "data": GROUND | {"posterior"},
    "representation": GROUND | {"posterior", "data"},
    "inference": GROUND | {"posterior", "data"},
    "calibration": GROUND | BELOW,
    "applicability": GROUND | BELOW | {"calibration"},
    # persistence knows models by the names of their kinds and imports none.
    "acquisition": GROUND | BELOW | {"calibration", "applicability", "persistence"},
    "testing": GROUND | BELOW,
    **{family: GROUND | BELOW | {"inference"} for family in FAMILIES},
}
ABOVE = {
    "campaigning",
    "certified",
    "configuration",
    "persistence",
    "cli",
    "judging",
    "kinetics",
    "options",
    "quickstart",
    "report",
    "sampling",
    "scorecard_errors",
    "scorecard_lines",
    "scorecard_plots",
    "scorecard_timing",
    "scorecards",
    "vmc",
    "__init__",
    "__main__",
}
OWNERS = {
    "arviz": ["posterior/arviz.py"],
    "botorch": ["acquisition/botorch.py"],
    "chgnet": ["potentials/foundation_chgnet.py"],
    "deeptime": ["dynamics/deeptime.py"],
    "gpytorch": ["potentials/gradient_*.py", "acquisition/botorch.py"],  # BoTorch's posteriors are gpytorch's
    "jax": ["inference/nuts.py", "wavefunctions/*.py"],
    "joblib": ["parallel.py"],
    "linear_operator": ["potentials/gradient_*.py"],
    "mapie": ["calibration/conformal.py"],
    "mdtraj": ["data/trajectory_formats.py"],
    "nflows": ["flows/*.py"],
    "numpyro": ["inference/nuts.py"],
    "openmm": ["data/reference.py", "flows/force_field_openmm.py"],
    "pymatgen": ["potentials/foundation_chgnet.py"],
    "pyro": ["inference/svi.py"],
    "pyscf": ["data/reference.py", "wavefunctions/reference.py"],
    "tblite": ["data/reference.py"],
}
UNSAFE = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
# Of joblib: they run functions; its dump and load are pickle.
PARALLEL = {"Parallel", "delayed", "effective_n_jobs", "get_active_backend"}
VAGUE = {"utils", "util", "core", "helpers", "helper", "common", "misc", "tools", "base_classes"}
LAZY = ["gpytorch", "pyro", "numpyro", "jax", "nflows", "mapie", "arviz", "botorch", "matplotlib", "sklearn", "ase"]
LAZY += ["chgnet", "deeptime"]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room(path: str) -> str:
    """``posterior/gaussian.py`` and ``bayesmol.posterior.gaussian`` → ``posterior``; the random leaf is its own."""
    parts = path.removesuffix(".py").replace("/", ".").removeprefix("bayesmol.").split(".")
    return "inference.random" if parts[:2] == ["inference", "random"] else parts[0]


def imports(tree: ast.AST) -> set[str]:
    """Full names of the modules that a file imports, at the top or inside its functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(node.module)
            if node.module in {"bayesmol", "bayesmol.inference"}:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "optional":
            found.add(ast.unparse(node.args[0]).strip("f'\""))
    return found


def forbidden(path: str, source: str) -> list[str]:
    """Imports within bayesmol that the direction forbids to the file ``path``."""
    here = room(path)
    if here in ABOVE:
        return []
    names = {n for n in imports(ast.parse(source)) if n.startswith("bayesmol.") and n != "bayesmol.inference"}
    return sorted(n for n in names if room(n) != here and room(n) not in MAY_IMPORT[here])


def strangers(path: str, source: str) -> list[str]:
    """Heavy libraries that the file ``path`` imports without owning them."""
    used = {n.split(".")[0] for n in imports(ast.parse(source))} & OWNERS.keys()
    return sorted(n for n in used if not any(Path(path).match(pattern) for pattern in OWNERS[n]))


def long_functions(source: str, limit: int = 40) -> list[str]:
    """Functions of more than ``limit`` lines, docstring apart."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = ast.get_docstring(node) is not None
            length = node.end_lineno - node.lineno + 1 - documented * (first.end_lineno - first.lineno + 1)
            found += [f"{node.name}: {length}"] if length > limit else []
    return found


def unsafe(source: str) -> list[str]:
    """Ways of reading files that can run code."""
    tree = ast.parse(source)
    found = [n for n in imports(tree) if n.split(".")[0] in UNSAFE]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and {a.name for a in node.names} <= PARALLEL and node.module in found:
            found.remove(node.module)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"torch.load", "torch.save"}:
            found.append(ast.unparse(node))
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append("allow_pickle")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"eval", "exec"}:
            found.append(ast.unparse(node.func))
    return found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_file(path):
    source = path.read_text(encoding="utf-8")
    assert forbidden(name(path), source) == []
    assert strangers(name(path), source) == []
    assert unsafe(source) == []
    assert len(source.splitlines()) <= 300
    assert long_functions(source) == []
    assert not VAGUE & set(Path(name(path)).with_suffix("").parts)
    assert ast.get_docstring(ast.parse(source)), "a file says what it is"


def test_every_room_has_a_rule():
    assert {room(name(path)) for path in FILES} <= MAY_IMPORT.keys() | ABOVE


def test_tests_mirror_the_package():
    root = Path(__file__).parent
    beside = {
        "conftest.py",
        "public_types.py",
        "test_documentation.py",
        "test_packaging.py",
        "test_architecture.py",
        "test_annotations.py",
    }
    tests = {
        p.relative_to(root).with_name(p.name.removeprefix("test_")).as_posix() for p in TESTS if p.name not in beside
    }
    tests = {path for path in tests if not path.startswith("reliability/")}  # of the package as a whole
    studies = {path for path in tests if path.startswith("experiments/")}
    assert all((root.parent / path).exists() for path in studies), "each test of a study has its study"
    tests -= studies
    assert tests - {name(path) for path in FILES} == set()
    own = {name(path) for path in FILES if path.name not in {"__init__.py", "__main__.py"}}
    assert own - tests == set(), "each file has its tests"


def test_import_is_light():
    code = f"import sys, bayesmol; print([n for n in {LAZY} if n in sys.modules], 'torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[] True"


def test_public_names_resolve():
    for public in bayesmol.__all__:
        assert getattr(bayesmol, public) is not None
    assert set(bayesmol.__all__) <= set(dir(bayesmol))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = bayesmol.nonsense


def shown(source: str) -> set[tuple[str, str]]:
    """Public names and their modules, as a lazy package shows them to type checkers."""
    blocks = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    lines = [line for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING" for line in node.body]
    return {(alias.asname or "", f"{line.module}.{alias.name}") for line in lines for alias in line.names}


@pytest.mark.parametrize("package", ["dynamics", "flows", "potentials", "wavefunctions"])
def test_type_checkers_see_the_lazy_names(package):
    names = getattr(bayesmol, package)._NAMES.items()
    found = shown((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    assert found == {(name, f"bayesmol.{package}.{module}.{name}") for name, module in names}


@pytest.mark.parametrize("package", ["dynamics", "flows", "potentials", "wavefunctions"])
def test_no_lazy_name_is_that_of_a_file(package):
    """Else a module would stand in its place as soon as it is loaded."""
    names = getattr(bayesmol, package)._NAMES
    assert not names.keys() & {path.stem for path in (ROOT / package).glob("*.py")}


def test_type_checkers_see_the_first_names():
    wanted = {(name, f"bayesmol.{name}") for name in bayesmol._PACKAGES}
    wanted |= {(name, f"{module}.{name}") for name, module in bayesmol._NAMES.items()}
    assert shown((ROOT / "__init__.py").read_text(encoding="utf-8")) == wanted


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("posterior/gaussian.py", "from bayesmol.data import Structures"),
        ("potentials/ace.py", "from bayesmol.flows import Flow"),
        ("calibration/metrics.py", "def f():\n    import bayesmol.potentials"),
        ("inference/random.py", "from bayesmol.posterior import Draws"),
        ("inference/conjugate.py", "from bayesmol import representation"),
    ],
)
def test_a_wrong_direction_is_found(path, source):
    assert forbidden(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("potentials/ace.py", "import gpytorch.kernels"),
        ("calibration/metrics.py", "def f():\n    from mapie.regression import X"),
        ("calibration/metrics.py", "def f():\n    optional('pyscf.gto', 'quantum')"),
    ],
)
def test_a_borrowed_library_is_found(path, source):
    assert strangers(path, source)
    assert not strangers("potentials/gradient_kernel.py", "import gpytorch")


def test_long_functions_are_found():
    body = "\n".join(f"    x{i} = {i}" for i in range(40))
    assert long_functions(f"def f():\n{body}\n") == ["f: 41"]
    text = "\n".join("    text" for _ in range(50))
    assert long_functions(f'def f():\n    """One.\n{text}\n    """\n    return 1\n') == []


@pytest.mark.parametrize(
    "source",
    ["import pickle", "torch.load('x')", "numpy.load('x', allow_pickle=True)", "eval('1')", "from joblib import dump"],
)
def test_unsafe_reading_is_found(source):
    assert unsafe(source)
