"""Shapes that recur in annotations: ``atoms``, ``structures`` and ``features`` are the names of axes."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Cells", "Energies", "Features", "Forces", "Inside", "Pointer", "Positions", "Species", "Stresses"]

Positions = Float[Tensor, "atoms 3"]
Forces = Float[Tensor, "atoms 3"]
Species = Int[Tensor, "atoms"]
Energies = Float[Tensor, "structures"]
Stresses = Float[Tensor, "structures 3 3"]
Cells = Float[Tensor, "structures 3 3"]
Inside = Bool[Tensor, "structures"]
Pointer = Int[Tensor, "structures+1"]
Features = Float[Tensor, "rows features"]
