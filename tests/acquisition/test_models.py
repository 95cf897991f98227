import pytest
import torch

from bayesmol.acquisition.models import grown, last_fit
from bayesmol.errors import DataError

from .conftest import TINY, Springs, pool


@pytest.fixture(scope="module")
def batches():
    labelled = Springs().label(pool(16)).labelled
    return [labelled[:6], labelled[6:8], labelled[8:12], labelled[12:16]]


def test_when_it_is_fitted_again():
    assert last_fit([10], 2.0) == 0
    assert last_fit([10, 15, 19], 2.0) == 0
    assert last_fit([10, 15, 20, 39], 2.0) == 2
    assert last_fit([10, 15, 20, 40], 2.0) == 3
    assert last_fit([10, 11, 12], 1.0) == 2


def test_growing_step_by_step_is_growing_at_once(batches, tmp_path):
    structures = pool(3, seed=1)
    for end in range(1, 5):
        step = grown(TINY, batches[:end], tmp_path / "steps", refit=2.0, seed=0)
    at_once = grown(TINY, batches, tmp_path / "once", refit=2.0, seed=0)
    assert torch.equal(step.predict(structures).forces.mean, at_once.predict(structures).forces.mean)
    assert torch.equal(step.predict(structures).forces.variance, at_once.predict(structures).forces.variance)
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("steps", "once")]
    assert set(files[1]) <= set(files[0])
    for name in files[1]:
        assert (tmp_path / "steps" / name).read_bytes() == (tmp_path / "once" / name).read_bytes()


def test_an_update_has_the_hyper_parameters_of_the_last_fit(batches, tmp_path):
    first = grown(TINY, batches[:1], tmp_path, refit=2.0, seed=0)
    second = grown(TINY, batches[:2], tmp_path, refit=2.0, seed=0)
    third = grown(TINY, batches[:3], tmp_path, refit=2.0, seed=0)
    assert torch.equal(first.model.log_noise, second.model.log_noise)
    assert not torch.equal(first.model.log_noise, third.model.log_noise)
    assert bool(second.trained(batches[1].structures).all())


def test_a_model_that_cannot_be_updated_is_fitted(batches, tmp_path):
    seen = []

    class Counting:
        def fit(self, labelled, *, seed):
            seen.append(len(labelled))
            return len(labelled)

    assert grown(Counting(), batches[:2], tmp_path, refit=2.0, seed=0) == 8
    assert seen[-1] == 8
    assert not list(tmp_path.iterdir())


def test_no_labels(tmp_path):
    with pytest.raises(DataError, match="batches"):
        grown(TINY, [], tmp_path, refit=2.0, seed=0)
