"""A task for each of many items, every one in a process of its own that may crash, hang, or be changed for good."""

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any


def scatter(task: Callable[[Any], Any], items: list[Any], workers: int, seconds: Callable[[Any], float]) -> Iterator:
    """(item, what ``task`` returns) in the order of finishing, each in a process of its own.

    None instead of a result: the process ran beyond its processor time, or beyond ten times that on the clock. A
    negative number: a signal ended it.
    """
    fork = multiprocessing.get_context("fork")
    waiting, running = list(reversed(items)), {}
    while waiting or running:
        while waiting and len(running) < workers:
            item = waiting.pop()
            here, there = fork.Pipe(duplex=False)
            process = fork.Process(target=_in_child, args=(task, item, there, seconds(item)))
            process.start()
            there.close()
            running[here] = (item, process, time.monotonic() + 60 + 10 * seconds(item))
        ready = wait(running, timeout=1)
        for pipe in list(running):
            item, process, end = running[pipe]
            if pipe not in ready and time.monotonic() < end:
                continue
            try:
                result = pipe.recv() if pipe in ready else None
            except EOFError:
                process.join()
                result = None if process.exitcode == -signal.SIGXCPU else process.exitcode
            if process.is_alive() and pipe not in ready:
                os.killpg(process.pid, signal.SIGKILL)
            process.join()
            del running[pipe]
            yield item, result


def _in_child(task: Callable[[Any], Any], item: Any, pipe: Connection, seconds: float) -> None:
    os.setsid()  # so that the compiler ends with its process
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send(task(item))
    pipe.close()
