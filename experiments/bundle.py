"""Make the data files that ship in bayesmol/data/files from the published ones.

The folder given has rmd17/ (github.com/andersx/rmd17-npz), ethanol_probes/ and acac/
(github.com/davkovacs/BOTNet-datasets) and qmc_graphene/ (github.com/qmc-hamm/interlayer_energies_demo).

    python experiments/bundle.py SOURCE --out bayesmol/data/files
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesmol.data.named import named

EXTENDED_XYZ = {
    "ethanol_h-removal": "ethanol_probes/test_H_removal.xyz",
    "ethanol_dimers": "ethanol_probes/test_dimers.xyz",
    "ethanol_isolated-atoms": "ethanol_probes/isolated_atoms.xyz",
    "methanol_test": "ethanol_probes/test_eth_meth.xyz@:145",
    "acetylacetone_train-300K": "acac/train_300K.xyz",
    "acetylacetone_dihedral": "acac/test_dihedral.xyz",
    "acetylacetone_h-transfer": "acac/test_H_transfer.xyz",
    "acetylacetone_isolated-atoms": "acac/isolated_atoms.xyz",
}
LATTICE_CONSTANT = 2.46  # Å, graphene
VACUUM = 20.0  # Å, length of the lattice vector that does not repeat


def rmd17_ethanol(folder: Path) -> dict[str, NDArray[Any]]:
    """250 training frames, the 1000 test frames, the other 750 training frames of split 01, in kcal/mol."""
    train, test = (dict(np.load(folder / f"rmd17_ethanol_{part}_01.npz")) for part in ("train", "test"))
    joined = {k: np.concatenate([train[k][:250], test[k], train[k][250:]]) for k in ("coords", "energies", "forces")}
    frames, atoms = joined["coords"].shape[:2]
    return {
        "positions": joined["coords"].reshape(-1, 3),
        "species": np.tile(train["nuclear_charges"], frames),
        "counts": np.full(frames, atoms),
        "energies": joined["energies"],
        "forces": joined["forces"].reshape(-1, 3),
        "energy_unit": np.array("kcal/mol"),
    }


def extended_xyz(path: Path) -> dict[str, NDArray[Any]]:
    """Molecules, energies and, where the file has them, forces; ``FILE@FRAMES`` takes some of the frames."""
    data = named(str(path))
    found = {
        "positions": data.structures.positions.numpy(),
        "species": data.structures.species.numpy().astype(np.uint8),
        "counts": data.structures.counts.numpy(),
        "energies": data.energies.numpy(),
        "energy_unit": np.array("eV"),
    }
    return found if data.forces is None else found | {"forces": data.forces.numpy()}


def graphene(path: Path) -> dict[str, NDArray[Any]]:
    """Bilayers of four atoms with energies and standard errors of the cell.

    With bonds of length b along x, the upper layer is shifted by t = b (1 + 3 s) for a disregistry s in armchair
    periods of 3b: s = 0 is AB (t = b), 1/6 the saddle point SP (t = 3b/2), 2/3 AA (t = 3b, a full period).
    """
    with path.open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    bond, half = LATTICE_CONSTANT / np.sqrt(3), LATTICE_CONSTANT / 2
    cell = np.array([[1.5 * bond, half, 0], [1.5 * bond, -half, 0], [0, 0, VACUUM]])
    positions = []
    for row in rows:
        disregistry = round(row["disregistry"] * 6) / 6
        shift = bond * (1 + 3 * disregistry) % (3 * bond)
        positions += [[0, 0, 0], [bond, 0, 0], [shift, 0, row["d"]], [shift + bond, 0, row["d"]]]
    return {
        "positions": np.array(positions),
        "species": np.full(4 * len(rows), 6, dtype=np.uint8),
        "counts": np.full(len(rows), 4),
        "cell": np.tile(cell, (len(rows), 1, 1)),
        "pbc": np.tile([True, True, False], (len(rows), 1)),
        "energies": 4 * np.array([row["energy"] for row in rows]),
        "energy_errors": 4 * np.array([row["energy_err"] for row in rows]),
        "energy_unit": np.array("eV"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    sets = {"rmd17_ethanol": rmd17_ethanol(arguments.source / "rmd17")}
    sets |= {name: extended_xyz(arguments.source / file) for name, file in EXTENDED_XYZ.items()}
    sets["qmc_graphene"] = graphene(arguments.source / "qmc_graphene" / "qmc_demo.csv")
    for name, content in sets.items():
        np.savez_compressed(arguments.out / f"{name}.npz", **content)


if __name__ == "__main__":
    main()
