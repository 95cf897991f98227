"""How a structure becomes a vector."""

from bayesmol.representation.torsions import HeavyDistances, Torsions, heavy_distances, torsions

__all__ = ["HeavyDistances", "Torsions", "heavy_distances", "torsions"]
