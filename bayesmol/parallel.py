"""The same call on one core, on two processes, or on a cluster: the only file that knows joblib."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from bayesmol.progress import progress

__all__ = ["parallel"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    description: str = "",
    received: Callable[[int, Result], None] | None = None,
) -> list[Result]:
    """``[function(item) for item in items]``, in this order, wherever joblib is told to compute.

    Without more it runs here, one item after the other. ``with joblib.parallel_config(n_jobs=2):`` around the call
    makes it run in two processes, and ``with joblib.parallel_config("dask"):`` on the cluster of the
    ``distributed.Client`` that is open, which computes again what a lost worker had. Where items are computed changes
    no result: a function that needs random numbers takes its seed with the item.

    Parameters
    ----------
    function
        Defined at the top of a module, so that other processes find it.
    items
        One task each: make them last at least some 10 ms.
    description
        Of the progress bar.
    received
        Called here with the position and the result of each item as it comes, in order: to keep what is done.

    Raises
    ------
    Exception
        The first that ``function`` raises, with a note that names the item.
    """
    tasks, results = list(enumerate(items)), []
    with progress(description or "computing", len(tasks)) as advance:
        for position, result in enumerate(_computed(function, tasks)):
            if received is not None:
                received(position, result)
            results.append(result)
            advance()
    return results


def _computed(function: Callable[[Item], Result], tasks: list[tuple[int, Item]]) -> Iterable[Result]:
    """Results as they come, in order."""
    if len(tasks) < 2:  # a single item, as at a step of a simulation, is not worth a pool
        return (_named(function, position, item) for position, item in tasks)
    from joblib import Parallel, delayed

    shared = _shared(function)
    work = (delayed(_named)(shared, position, item) for position, item in tasks)
    return Parallel(return_as="generator")(work)


def _shared(function: Callable[[Item], Result]) -> Any:
    """The function, or on a Dask cluster a task that gives it: what it holds, such as a model, then goes to a worker
    once and not with each item, and again where the worker is lost."""
    from joblib import effective_n_jobs
    from joblib.parallel import get_active_backend

    client = getattr(get_active_backend()[0], "client", None)
    if client is None or effective_n_jobs() < 2:  # one worker is not worth the way: joblib computes here
        return function
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")  # of Dask; this is how to send it but once
        return client.submit(_same, function, pure=False)


def _same(function: Callable[[Item], Result]) -> Callable[[Item], Result]:
    return function


def _named(function: Callable[[Item], Result], position: int, item: Item) -> Result:
    """The result for one item; an error says which item it was."""
    try:
        return function(item)
    except Exception as error:
        text = repr(item)
        error.add_note(f"in item {position}: {text if len(text) <= 200 else text[:200] + '…'}")
        raise
