"""One function for many cases, in several processes, with a progress bar."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from tqdm import tqdm

from nnunet_skd.tools.errors import BadInput


def require_processes(number: int | None) -> None:
    """Refuse a number of processes that is none, before anything is done.

    Raises:
        BadInput: it is below 1.
    """
    if number is not None and number < 1:
        raise BadInput(f"-np is {number}, but has to be at least 1")


def in_order(function: Callable, jobs: Sequence[tuple], processes: int, title: str) -> list:
    """``function(*job)`` of each job, in their order.

    Raises:
        BadInput: as :func:`for_each_case`.
    """
    found = dict(for_each_case(function, dict(enumerate(jobs)), processes, title))
    return [found[number] for number in range(len(jobs))]


def for_each_case(function: Callable, jobs: dict[str, tuple], processes: int, title: str) -> Iterator[tuple]:
    """Yield (case, function(*arguments)) for each case of `jobs`, in the order in which they finish.

    Raises:
        BadInput: a process was killed, as the operating system does when memory runs out.
    """
    if min(processes, len(jobs)) <= 1:
        for case, arguments in tqdm(jobs.items(), desc=title, unit="case"):
            yield case, function(*arguments)
        return
    spawn = multiprocessing.get_context("spawn")  # as nnU-Net's preprocessing; forking after torch was used may hang
    others = multiprocessing.active_children()
    # Not multiprocessing.Pool: that waits forever for a process which the system killed.
    pool = ProcessPoolExecutor(min(processes, len(jobs)), mp_context=spawn, initializer=_end_with_parent)
    try:
        cases = {pool.submit(function, *arguments): case for case, arguments in jobs.items()}
        for done in tqdm(as_completed(cases), total=len(cases), desc=title, unit="case"):
            yield cases[done], done.result()
    except BrokenProcessPool as error:
        raise BadInput(
            f"{title}: a process was killed, probably because memory ran out. Use fewer processes (-np)"
        ) from error
    except BaseException:  # stopped: a large case may take longer than a scheduler waits for us
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A process of the pool would wait for work for ever after its parent was killed. Ctrl-C is the parent's to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
