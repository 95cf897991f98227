import pytest
import torch

from bayesmol.report import Study


@pytest.fixture
def module(study):
    return study("active_learning_select")


def test_figures_of_a_small_pool(module, study):
    structures = study("harness").labelled("rmd17/ethanol")[:20].structures
    filled = Study("active_learning", "select")
    module.selection(filled, structures, rows=400, large=500, width=12, size=20)
    for name in ("lcmd", "logdet", "k_centre"):
        assert filled.figures[f"same_picks_{name}"].value == 1.0
        assert filled.figures[f"same_picks_{name}_clustered"].value == 1.0
        for ending in ("", "_clustered", "_1e6"):
            assert filled.figures[f"select_cpu_seconds_{name}{ending}"].value > 0
    assert any("bmdal" in note for note in filled.notes)


def test_pool_of_atoms_is_clustered(module, study):
    structures = study("harness").labelled("rmd17/ethanol")[:10].structures
    pool = module.atom_pool(structures, 150, 16, torch.Generator().manual_seed(0))
    assert pool.shape == (150, 16) and pool.dtype == torch.float32
    distances = torch.cdist(pool, pool).fill_diagonal_(torch.inf)
    assert float(distances.amin(1).median()) < 0.5 * float(distances[distances.isfinite()].median())
