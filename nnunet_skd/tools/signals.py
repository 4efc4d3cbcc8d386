"""What ends a command from outside stops it as Ctrl-C does, and ends the processes that were forked in it at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Of a scheduler or a closed terminal. Windows has no SIGHUP.
FROM_OUTSIDE = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

_fork = threading.local()  # of a thread that forks: .goes_on, .handled, .mask


@contextmanager
def stopped_as_by_ctrl_c() -> Iterator[None]:
    """Whatever ends a command from outside raises KeyboardInterrupt, so that scratch folders and its commands go too.

    Signals that are ignored, as under nohup, or have a handler stay as they are.
    """
    usual = {signal.SIGINT: signal.default_int_handler} | dict.fromkeys(FROM_OUTSIDE, signal.SIG_DFL)
    main = threading.current_thread() is threading.main_thread()
    taken = {number: handler for number, handler in usual.items() if main and signal.getsignal(number) is handler}
    for number in taken:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def _stop(number: int, _: object) -> None:
    if getattr(_fork, "goes_on", False):  # there Python drops exceptions
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        return
    for other in _handled():  # a terminal may send several; the second Ctrl-C interrupts the tidying
        signal.signal(other, signal.default_int_handler if other == signal.SIGINT else signal.SIG_IGN)
    raise KeyboardInterrupt


def _handled() -> list[int]:
    return [number for number in (signal.SIGINT, *FROM_OUTSIDE) if signal.getsignal(number) is _stop]


# nnU-Net's Pool forks processes, ends them by SIGTERM and waits for them. Python calls a handler between two of its
# instructions, so a process that is about to wait for a lock would never hear of it. Blocked meanwhile: what arrives
# before the child has given up the handler must not be lost.


def _before_fork() -> None:
    _fork.goes_on, _fork.handled = True, _handled()
    if _fork.handled:
        _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _fork.handled)


def _after_fork() -> None:
    if _fork.handled:
        signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)
    _fork.goes_on = False


def _after_fork_in_child() -> None:
    for number in _fork.handled:
        signal.signal(number, signal.SIG_DFL)
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
