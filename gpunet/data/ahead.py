"""Results made ahead by threads, and handed out in order."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

Result = TypeVar("Result")

#: How the threads are called, in debuggers and tracebacks
THREADS = "gpunet-data"


def made_ahead(
    make: Callable[..., Result], jobs: Iterable[tuple[Any, ...]], workers: int, ahead: int
) -> Generator[Result, None, None]:
    """``make(*job)`` for each job, in order.

    An error of ``make`` is raised where its result was due, with the traceback it had in the thread. However the
    generator ends (exhausted, closed, collected, or by an error), its threads have ended too; jobs not yet begun are
    dropped.

    Args:
        make: called by any thread, several at once if there are several.
        jobs: arguments of each call.
        workers: threads; 0 makes each result when it is asked for.
        ahead: results made or under way at most, apart from the one handed out last; at least one for each worker.

    Example:
        >>> list(made_ahead(pow, [(2, 3), (3, 2)], workers=2, ahead=2))
        [8, 9]
    """
    if workers == 0:
        for job in jobs:
            yield make(*job)
        return
    rest = iter(jobs)
    pool = ThreadPoolExecutor(workers, thread_name_prefix=THREADS)
    waiting: deque[Future[Result]] = deque()
    try:
        waiting.extend(pool.submit(make, *job) for job in islice(rest, max(workers, ahead)))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(make, *job) for job in islice(rest, 1))
            yield result
    finally:
        # The collector may close a forgotten generator in one of these threads, which cannot wait for itself.
        pool.shutdown(wait=not threading.current_thread().name.startswith(THREADS), cancel_futures=True)
