"""The same call, serially, on two processes and on a cluster that loses a worker."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import joblib
import pytest

from bayesmol.parallel import parallel

sys.path.append(str(Path(__file__).parents[1]))  # other processes import the functions of this file by its name


def process_and_square(number):
    time.sleep(0.02)
    return os.getpid(), number**2


def reciprocal(number):
    return 1 / number


def square_or_lose_the_worker(item):
    """The first task that finds no file writes one and kills its own process."""
    number, mark = item
    time.sleep(0.05)
    if number == 5 and mark:
        try:
            Path(mark).touch(exist_ok=False)
        except FileExistsError:
            return number**2
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def test_without_more_it_runs_here_and_in_order():
    found = parallel(process_and_square, range(6))
    assert found == [(os.getpid(), n**2) for n in range(6)]
    assert parallel(process_and_square, []) == []


def test_two_processes_give_the_same_in_the_same_order():
    with joblib.parallel_config(n_jobs=2):
        found = parallel(process_and_square, range(30), description="squaring")
    assert [square for _, square in found] == [n**2 for n in range(30)]
    assert os.getpid() not in {process for process, _ in found}
    assert 1 <= len({process for process, _ in found}) <= 2


def test_results_are_handed_on_as_they_come():
    seen = []
    parallel(reciprocal, [1, 2, 4], received=lambda position, result: seen.append((position, result)))
    assert seen == [(0, 1.0), (1, 0.5), (2, 0.25)]
    seen.clear()
    with pytest.raises(ZeroDivisionError):
        parallel(reciprocal, [1, 2, 0], received=lambda position, result: seen.append((position, result)))
    assert seen == [(0, 1.0), (1, 0.5)], "what was done before the error is kept"


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("items", [[1, 2, 0, 4], [0]])
def test_an_error_names_its_item(processes, items):
    with joblib.parallel_config(n_jobs=processes), pytest.raises(ZeroDivisionError) as caught:
        parallel(reciprocal, items)
    assert f"in item {items.index(0)}: 0" in caught.value.__notes__


def test_a_long_item_is_named_in_short():
    with pytest.raises(TypeError) as caught:
        parallel(reciprocal, ["x" * 1000])
    assert len(caught.value.__notes__[0]) < 300


class Heavy:
    """Something large, as a model is, that counts how often it leaves this process."""

    sent = 0

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        Heavy.sent += 1
        return Heavy, (self.content,)


def sized(heavy, number):
    return len(heavy.content) + number


@pytest.mark.slow
def test_a_cluster_of_one_thread_computes_here():
    import distributed

    options = {"n_workers": 1, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        found = parallel(process_and_square, range(3))
    assert found == [(os.getpid(), n**2) for n in range(3)]


@pytest.mark.slow
def test_a_cluster_gets_what_a_function_holds_once():
    """Dask would warn of the size of the tasks if it went with each of them."""
    import distributed

    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        found = parallel(partial(sized, Heavy(bytes(20_000_000))), range(12))
    assert found == [20_000_000 + number for number in range(12)]
    assert Heavy.sent <= 3, "to the scheduler, and to a worker, which gives it to the other"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the cluster, about the worker it lost
def test_a_cluster_that_loses_a_worker_gives_the_same(tmp_path):
    import distributed

    mark = tmp_path / "lost"
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        before = {worker["id"]: worker["pid"] for worker in client.run(_identity).values()}
        with joblib.parallel_config("dask"):
            found = parallel(square_or_lose_the_worker, [(n, str(mark)) for n in range(40)])
        client.wait_for_workers(2)
        after = {worker["id"]: worker["pid"] for worker in client.run(_identity).values()}
    assert mark.exists() and set(before.values()) != set(after.values()), "a worker was lost"
    assert found == parallel(square_or_lose_the_worker, [(n, "") for n in range(40)])


def _identity():
    return {"id": os.getpid(), "pid": os.getpid()}
