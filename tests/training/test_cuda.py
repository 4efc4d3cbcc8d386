"""What only a CUDA device can answer: mixed precision, inductor, synchronisations, memory, two processes on one device.

Run with ``pytest -m cuda``; skipped where there is no device. See experiments/gpu.
"""

import math
import random
import warnings

import pytest
import torch
import torch.multiprocessing as mp
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from toy import FAMILIES, make_batch, make_trainer, start_epoch
from toy_models import finish, taught

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("nnunet_env"),
]
TASKS = [{"dim": 2}, {"dim": 3, "patch": 16}, {"regions": True}, {"ignore": True}, {"regions": True, "ignore": True}]


def on_cuda(trainer_class, *, compiled=False, **kind):
    trainer = make_trainer(trainer_class, stages=4, device="cuda", **kind)
    trainer._do_i_compile = lambda: compiled
    trainer.initialize()
    return trainer


@pytest.mark.parametrize("trainer_class", FAMILIES)
@pytest.mark.parametrize("task", TASKS, ids=str)
def test_mixed_precision_steps_are_finite_and_move_everything(trainer_class, task):
    trainer = on_cuda(trainer_class, **task)
    assert trainer.grad_scaler is not None
    parameters = list(trainer.network.parameters())
    if trainer.own_parameters is not None:
        parameters += [p for group in trainer.own_parameters.optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in parameters]
    for epoch in (0, 500):
        start_epoch(trainer, epoch)
        losses = [trainer.train_step(make_batch(trainer, seed))["loss"].item() for seed in range(8)]
    assert all(math.isfinite(loss) for loss in losses)
    assert all(math.isfinite(value) for value in trainer.loss.means.pop().values())
    moved = sum(not torch.equal(a, b) for a, b in zip(before, parameters, strict=True))
    assert moved > 0.8 * len(parameters)


@pytest.mark.parametrize("trainer_class", FAMILIES)
def test_inductor_gives_the_losses_of_eager_steps(trainer_class):
    losses = []
    for compiled in (False, True):
        trainer = on_cuda(trainer_class, compiled=compiled)
        start_epoch(trainer, 500)
        losses.append([trainer.train_step(make_batch(trainer, seed))["loss"].item() for seed in range(3)])
        torch._dynamo.reset()
    assert losses[1] == pytest.approx(losses[0], abs=2e-2)


@pytest.mark.parametrize("trainer_class", FAMILIES)
def test_a_step_synchronises_no_more_often_than_nnunets(trainer_class):
    counts = []
    for one in (nnUNetTrainer, trainer_class):
        trainer = on_cuda(one)
        start_epoch(trainer, 500)
        for seed in range(3):
            trainer.train_step(make_batch(trainer, seed))
        batch = make_batch(trainer)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                trainer.train_step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("synchron" in str(warning.message) for warning in caught))
    own = int(getattr(trainer, "own_parameters", None) is not None)  # its gradient scaler asks once more
    assert counts[1] <= counts[0] + own


def test_peak_memory_of_dskd_is_near_nnunets():
    peaks = []
    for one in (nnUNetTrainer, FAMILIES[0]):
        trainer = on_cuda(one, patch=128, batch_size=8)
        start_epoch(trainer, 500)
        for seed in range(2):
            torch.cuda.reset_peak_memory_stats()
            trainer.train_step(make_batch(trainer, seed))
        peaks.append(torch.cuda.max_memory_allocated())
        del trainer
        torch.cuda.empty_cache()
    assert peaks[1] < 1.3 * peaks[0]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("resident", [True, False])
def test_finished_models_teach_in_half_precision(compiled, resident, monkeypatch):
    folder = finish(folds=(0, 3), stages=4)
    trainer = taught(folder, fold="all", stages=4, device="cuda", compiled=compiled, monkeypatch=monkeypatch)
    start_epoch(trainer, 0)
    networks = [member.network for member in trainer.teacher._members]
    if not resident:
        trainer.teacher._resident = False
        for network in networks:
            network.to("cpu")
    random.seed(0)
    losses = [trainer.train_step(make_batch(trainer, seed))["loss"].item() for seed in range(6)]
    assert all(math.isfinite(loss) for loss in losses) and trainer.loss.means.pop()["ddl"] > 0
    places = {(p.device.type, p.dtype) for network in networks for p in network.parameters()}
    assert places == {("cuda" if resident else "cpu", torch.half)}


def _sum_over_ranks(rank: int, file: str, backend: str) -> None:
    torch.distributed.init_process_group(backend, init_method=f"file://{file}", rank=rank, world_size=2)
    value = torch.full((4,), float(rank + 1), device="cuda")
    torch.distributed.all_reduce(value)
    assert value.tolist() == [3.0] * 4
    torch.distributed.destroy_process_group()


def test_two_processes_on_one_device_average_by_gloo(tmp_path):
    mp.spawn(_sum_over_ranks, args=(str(tmp_path / "rendezvous"), "gloo"), nprocs=2)
