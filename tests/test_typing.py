import pytest
import torch
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped

from bayesmol.typing import Forces, Positions


@jaxtyped(typechecker=beartype)
def pull(positions: Positions) -> Forces:
    return -positions[: len(positions)]


@jaxtyped(typechecker=beartype)
def lose(positions: Positions) -> Forces:
    return -positions[1:]


def test_aliases_bind_the_number_of_atoms():
    assert pull(torch.ones(4, 3)).shape == (4, 3)
    with pytest.raises(TypeCheckError):
        lose(torch.ones(4, 3))
    with pytest.raises(TypeCheckError):
        pull(torch.ones(4, 2))
