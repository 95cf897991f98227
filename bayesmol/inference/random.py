"""One seed, and generators for torch and numpy made from it; no global state is touched."""

import numpy as np
import torch

from bayesmol.errors import DataError, expected

__all__ = ["generator", "integer_seed", "numpy_generator"]


def _checked(seed: int | torch.Generator) -> int | torch.Generator:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer, torch.Generator)):
        raise DataError(expected("seed", "an integer or a torch.Generator", repr(seed)))
    if not isinstance(seed, torch.Generator) and not 0 <= seed < 2**63:
        raise DataError(expected("seed", "an integer from 0 to 2⁶³ − 1", seed))
    return seed


def generator(seed: int | torch.Generator, device: torch.device | str = "cpu") -> torch.Generator:
    """Torch generator on ``device``; a generator passes through and so continues its stream.

    Raises
    ------
    DataError
        If ``seed`` is neither an integer nor a generator on ``device``.
    """
    seed = _checked(seed)
    if isinstance(seed, torch.Generator):
        if seed.device.type != torch.device(device).type:
            raise DataError(expected("seed", f"a generator on {device}", f"one on {seed.device}", "give an integer"))
        return seed
    return torch.Generator(device=device).manual_seed(int(seed))


def numpy_generator(seed: int | torch.Generator) -> np.random.Generator:
    """Numpy generator seeded by an integer, or by the next 62 bits of a torch generator."""
    seed = _checked(seed)
    if isinstance(seed, torch.Generator):
        seed = int(torch.randint(2**62, (), generator=seed, device=seed.device))
    return np.random.default_rng(int(seed))


def integer_seed(seed: int | torch.Generator) -> int:
    """An integer, so that two calls with it draw the same; of a generator the next 62 bits."""
    return seed if isinstance(seed, int) else int(numpy_generator(seed).integers(2**62))
