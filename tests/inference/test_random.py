import numpy as np
import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.inference.random import generator, numpy_generator


def test_the_same_seed_gives_the_same_numbers():
    first, second = (torch.rand(5, generator=generator(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(5, generator=generator(8)))
    assert np.array_equal(numpy_generator(7).random(5), numpy_generator(7).random(5))


def test_a_generator_continues_its_stream():
    stream = generator(7)
    assert generator(stream) is stream
    assert not np.array_equal(numpy_generator(stream).random(3), numpy_generator(stream).random(3))
    assert np.array_equal(numpy_generator(generator(7)).random(3), numpy_generator(generator(7)).random(3))


def test_the_global_state_is_left_alone():
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    torch.rand(3, generator=generator(0))
    numpy_generator(0).random()
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numbers, np.random.get_state()[1])


@pytest.mark.parametrize("seed", [True, 1.5, "1", None, -1, 2**63])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(DataError, match="seed"):
        generator(seed)
    with pytest.raises(DataError, match="seed"):
        numpy_generator(seed)


def test_a_generator_of_another_device_is_refused():
    with pytest.raises(DataError, match="meta"):
        generator(generator(0), device="meta")
