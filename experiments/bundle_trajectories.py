"""Make the trajectories of alanine dipeptide that ship, from the folder that ``kinetics.py generate`` filled.

    python experiments/bundle_trajectories.py FOLDER --every 2 --out bayesmol/data/files/trajectories

Angles are kept to half of π / 32767.
"""

import argparse
import math
from pathlib import Path

import kinetics_generate
import numpy as np


def write(folder: Path, out: Path, every: int) -> Path:
    """φ and ψ of every so many frames of all runs in one file."""
    parts = [angles[::every] for angles, _ in kinetics_generate.read(folder)]
    angles = np.round(np.concatenate(parts) * (32767 / math.pi)).astype(np.int16)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "alanine-dipeptide.npz"
    step = every * kinetics_generate.time_step(folder)
    np.savez_compressed(path, angles=angles, lengths=np.array([len(part) for part in parts]), time_step_ps=step)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    print(write(arguments.folder, arguments.out, arguments.every))


if __name__ == "__main__":
    main()
