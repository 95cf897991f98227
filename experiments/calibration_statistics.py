"""The report itself: what it costs, how often its verdict is a false alarm, and what it finds."""

from typing import Any

import numpy as np
import torch
from scipy import stats

import bayesmol as bm
from bayesmol.calibration.local import local, parts
from bayesmol.calibration.verdict import verdict
from bayesmol.posterior import Gaussian
from bayesmol.progress import progress
from bayesmol.report import Study, cpu_seconds, proportion

LAWS: dict[str, Any] = {"gaussian": stats.norm(), "student_t4": stats.t(4), "laplace": stats.laplace()}
MISSCALED = 1.1


def statistics(study: Study, *, sizes: list[int], replications: int, largest: int, seed: int) -> None:
    """Fill in the cost of a report for each size, and the false alarms and the power of its verdict."""
    for size in (10**5, 10**6):
        if size <= largest:
            study.add(f"report_cpu_seconds_1e{len(str(size)) - 1}", cost(size, seed), "s")
    alarms = trials = 0
    for law in LAWS:
        for size in sizes:
            runs = max(50, min(replications, replications * 2000 // size))
            with study.stage("false alarms"):
                found = wrong(law, size, runs, 1.0, seed)
            study.add(f"verdict_false_alarm_rate_{law}_{size}", proportion(found, runs))
            alarms, trials = alarms + found, trials + runs
        with study.stage("power"):
            found = min(wrong(law, 1000, replications // 2, scale, seed) for scale in (MISSCALED, 1 / MISSCALED))
        study.add(f"verdict_power_{law}", proportion(found, replications // 2))
    study.add("verdict_false_alarm_rate", proportion(alarms, trials))
    study.add("verdict_power", study.figures["verdict_power_gaussian"].value)
    with study.stage("dependent entries"):
        found = sum(clustered(np.random.default_rng((seed, k))) for k in range(replications // 2))
    study.add("verdict_false_alarm_rate_structures", proportion(found, replications // 2))
    identities(study)


def cost(size: int, seed: int) -> float:
    """CPU seconds of a whole report with its verdict, on a normal claim whose scale is 10 % wrong."""
    source = torch.Generator().manual_seed(seed)
    stddev = (0.5 * torch.randn(size, generator=source, dtype=torch.float64)).exp()
    truth = MISSCALED * stddev * torch.randn(size, generator=source, dtype=torch.float64)
    posterior = Gaussian(torch.zeros_like(stddev), stddev.square(), unit="eV")
    bm.calibration.evaluate(posterior[:1000], truth[:1000], seed=seed)
    start = cpu_seconds()
    bm.calibration.evaluate(posterior, truth, seed=seed).verdict()
    return cpu_seconds() - start


def wrong(law: str, size: int, runs: int, scale: float, seed: int) -> int:
    """How many verdicts speak against claims of this law, the labels being ``scale`` times as wide."""
    found = 0
    with progress(f"{law}, n = {size}", runs) as advance:
        for run in range(runs):
            source = np.random.default_rng((seed, size, run))
            values = scale * LAWS[law].rvs(size, random_state=source)
            z = torch.from_numpy(stats.norm.ppf(LAWS[law].cdf(values)))
            found += not judged(z, torch.arange(size), source)
            advance(1)
    return found


def clustered(source: np.random.Generator) -> bool:
    """Whether the verdict speaks against a true claim whose entries depend on each other within structures."""
    owner = torch.from_numpy(np.repeat(np.arange(200), source.integers(3, 28, 200)))
    common = torch.from_numpy(source.standard_normal(200))[owner]
    z = 0.6**0.5 * common + 0.4**0.5 * torch.from_numpy(source.standard_normal(len(owner)))
    return not judged(z, owner, source)


def judged(z: torch.Tensor, owner: torch.Tensor, source: np.random.Generator) -> bool:
    """Whether the verdict on normal scores, along two conditions that mean nothing, is that the claim may be true."""
    structures, hits = int(owner.max()) + 1, z.abs() <= stats.norm.ppf(0.95)
    conditions = {name: torch.from_numpy(source.random(len(z))) for name in ("stddev", "mean")}
    along = tuple(local(parts(name, values, structures), z, owner, hits) for name, values in conditions.items())
    return verdict(z, owner, along).consistent


def identities(study: Study) -> None:
    """Closed forms that hold to rounding."""
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    study.add("crps_standard_normal_at_zero", float(bm.calibration.crps(Gaussian(zero, one, unit="eV"), zero)), "eV")
    source = torch.Generator().manual_seed(0)
    probability = torch.rand(2000, generator=source, dtype=torch.float64)
    outcome = torch.rand(2000, generator=source, dtype=torch.float64) < probability.square()
    parts_of = bm.calibration.brier_decomposition(probability, outcome)
    gap = parts_of.reliability - parts_of.resolution + parts_of.uncertainty - parts_of.score
    study.add("brier_identity_gap", abs(float(gap)))
