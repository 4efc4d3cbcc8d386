"""The bench's instruments: time on CPU and CUDA, memory of tensors, medians and paired ratios."""

import gc
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from tqdm import tqdm

from nnunet_skd.tools.evaluate.statistics import quartiles

WATCHED = "nnunet_skd_bench_watched"
# Otherwise the profiler reports each start, stop and missing GPU on stderr.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


class Stopwatch:
    """Marks on a device's time line: the CPU's clock, or CUDA events, which do not make the CPU wait."""

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"

    def mark(self) -> Any:
        """Now."""
        if not self.cuda:
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self, start: Any, end: Any) -> float:
        """Time between two marks; waits until the device has reached the second."""
        if not self.cuda:
            return 1000 * (end - start)
        end.synchronize()
        return start.elapsed_time(end)


class Memory(NamedTuple):
    """Bytes of tensors, relative to the beginning: at the peak of the watched part, and at its end."""

    peak: int
    end: int


def tensor_memory(build: Callable[[], Any], watched: Callable[[Any], Any], device: torch.device) -> tuple[Any, Memory]:
    """Build something, run the watched part on it, and count the memory of both.

    CUDA: counters of PyTorch's allocator. CPU: the allocations that PyTorch's profiler reports; exact for tensors and
    the same in every run, but blind to what oneDNN and Python take for themselves.

    Args:
        build: makes the object; what stays of it counts, its own peak does not.
        watched: gets the object; what it returns is kept until the end is read.
        device: where both run.

    Returns:
        What `build` made, and the memory.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        built = build()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        kept = watched(built)
        torch.cuda.synchronize()
        memory = Memory(torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before)
        del kept
        return built, memory
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        built = build()
        with record_function(WATCHED):
            kept = watched(built)
    del kept
    return built, _read_trace(profiler)


def _read_trace(profiler: profile) -> Memory:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    (watched,) = (event for event in events if event.get("name") == WATCHED and event.get("ph") == "X")
    start, end = watched["ts"], watched["ts"] + watched["dur"]
    total, peak = 0, None
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"]):
        if event["ts"] > end:
            break
        if event["ts"] >= start:
            peak = total if peak is None else peak
        total += event["args"]["Bytes"]
        if peak is not None:
            peak = max(peak, total)
    return Memory(total if peak is None else peak, total)


def alternate(calls: list[Callable[[], Any]], rounds: int, text: str) -> list[list[Any]]:
    """Call A B C, A B C, ...: what slows the machine for a while slows all of them.

    Returns:
        For each call its results, one per round.
    """
    results = [[] for _ in calls]
    for _ in tqdm(range(rounds), desc=text, leave=False):
        for call, collected in zip(calls, results, strict=True):
            collected.append(call())
    return results


def paired_ratio(values: list[float], reference: list[float]) -> dict[str, float]:
    """Median and quartiles of the ratios within each round."""
    return quartiles([value / base for value, base in zip(values, reference, strict=True)])
