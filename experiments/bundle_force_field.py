"""Make the force fields that ship in bayesmol/data/files/force_fields from Amber's files.

SOURCE is a path without the suffixes .prmtop and .crd:

    python experiments/bundle_force_field.py SOURCE --name alanine-dipeptide --out bayesmol/data/files/force_fields
"""

import argparse
from pathlib import Path

from bayesmol.flows.force_field_openmm import read_amber

SOLVENTS = ("obc1", "obc2")


def write(source: Path, name: str, folder: Path) -> list[Path]:
    """One file for each solvent."""
    paths = [folder / f"{name}_{solvent}.npz" for solvent in SOLVENTS]
    for solvent, path in zip(SOLVENTS, paths, strict=True):
        read_amber(f"{source}.prmtop", f"{source}.crd", solvent=solvent).write(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    write(arguments.source, arguments.name, arguments.out)


if __name__ == "__main__":
    main()
