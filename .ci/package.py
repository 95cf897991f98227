"""Builds the sdist and a wheel from it, looks inside, and asks an installed copy for its parts: ``tox -e package``.

The argument is a Python that has the dependencies of bayesmol, that of the tests: nothing heavy is installed again.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXTS = ["CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md", "constraints.txt", "tox.ini"]
ASKED = """
import importlib.metadata, importlib.resources, pathlib, sys
import bayesmol as bm
from bayesmol.data.bundled import names
site = pathlib.Path(sys.argv[1])
assert pathlib.Path(bm.__file__).is_relative_to(site), bm.__file__
for part in ("py.typed", "report.html"):
    assert importlib.resources.files("bayesmol").joinpath(part).is_file(), part
sizes = {name: len(bm.data.load(name)) for name in names()}
bm.data.load_trajectories("alanine-dipeptide")
(script,) = importlib.metadata.distribution("bayesmol").entry_points.select(group="console_scripts")
assert callable(script.load()), script
assert importlib.metadata.version("bayesmol") == bm.__version__
print(f"bayesmol {bm.__version__}: {len(sizes)} data sets of {sum(sizes.values())} structures, command {script.name}")
"""


def built(folder: Path) -> tuple[Path, Path]:
    """The sdist, and a wheel made from it and not from the tree."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def tracked(part: str) -> set[str]:
    """Files of a folder as git has them."""
    names = subprocess.run(["git", "ls-files", part], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return set(names.splitlines())


def check_sdist(path: Path) -> None:
    """Sources, tests, studies and documentation are there, and no file that git does not know."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()} - {"PKG-INFO", ""}
    wanted = set(TEXTS).union(*(tracked(part) for part in ("bayesmol", "tests", "experiments", "docs")))
    assert wanted <= names, f"not in the sdist: {sorted(wanted - names)}"
    strange = names - tracked(".")
    assert not strange, f"in the sdist, but not in git: {sorted(strange)}"


def check_wheel(path: Path) -> None:
    """The package and its metadata, nothing else; no path of the machine that built it."""
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        texts = [archive.read(name) for name in names if not name.endswith(".npz")]
    assert names == tracked("bayesmol"), f"differ from git: {sorted(names ^ tracked('bayesmol'))}"
    assert not any(str(ROOT).encode() in text for text in texts), "a path of this machine"


def main(python: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        sdist, wheel = built(Path(name) / "dist")
        check_sdist(sdist)
        check_wheel(wheel)
        site = Path(name) / "site"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
        subprocess.run(command, check=True)
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        ask = [python, "-c", ASKED, str(site.resolve())]
        subprocess.run(ask, check=True, cwd=name, env=clean | {"PYTHONPATH": str(site.resolve())})


if __name__ == "__main__":
    main(*sys.argv[1:])
