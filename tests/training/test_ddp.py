"""Two gloo processes on the CPU: the ranks stay identical, and what they log is gathered."""

import os

import pytest
import torch
import torch.multiprocessing as mp
from ddp import join, on_cpu
from torch import distributed
from toy import assert_equal, make_batch, make_trainer, run_epoch
from toy_data import with_data
from toy_models import finish

from nnunet_skd.catalogue import trainer_classes
from nnunet_skd.losses.unlabelled import Unlabelled
from nnunet_skd.model_checks import VARIABLE
from nnunet_skd.trainers.nnUNetTrainerDSKD_unlabelled import nnUNetTrainerDSKD_unlabelled

TRAINERS = ("nnUNetTrainerDSKD", "nnUNetTrainerDSKD_ACW", "nnUNetTrainerDistill")


def rank_main(rank: int, world: int, file: str, folder: str):
    join(rank, world, file)

    # rank 0 never sees class 2
    batch_of = make_batch
    import toy

    def rank_batch(trainer, seed=0):
        batch = batch_of(trainer, 2 * seed + rank)
        if rank == 0:
            batch["target"] = [t.clamp(max=1) for t in batch["target"]]
        return batch

    toy.make_batch = rank_batch
    for name in TRAINERS:
        trainer = make_trainer(on_cpu(trainer_classes()[name]), patch=16, stages=4, batch_size=4, seed=rank)
        trainer.initialize()
        for epoch in range(3):
            run_epoch(trainer, epoch)
        torch.save(trainer.network.module.state_dict() | trainer.loss.terms.state_dict(), f"{folder}/{name}_{rank}.pth")
        if rank == 0:
            rows, losses = trainer.distillation_log.rows, trainer.logger.get_checkpoint()["train_losses"]
            sums = [sum(row[term] for term in trainer.loss.names) for row in rows]
            torch.save((rows, sums, list(map(float, losses))), f"{folder}/{name}_rows.pth")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_stay_identical_and_gather_their_terms(nnunet_env, monkeypatch):
    folders = [finish(seed=seed, patch=16, stages=4).rename(nnunet_env / f"{seed}__nnUNetPlans__2d") for seed in (1, 2)]
    monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, folders)))  # of Distill: each rank draws its own members
    with_data(make_trainer(trainer_classes()["nnUNetTrainerDistill"], patch=16, stages=4), size=20, unlabelled=())
    mp.spawn(rank_main, args=(2, str(nnunet_env / "rendezvous"), str(nnunet_env)), nprocs=2)
    for name in TRAINERS:
        first, second = (torch.load(nnunet_env / f"{name}_{rank}.pth") for rank in (0, 1))
        assert_equal(first, second)
        rows, sums, losses = torch.load(nnunet_env / f"{name}_rows.pth")
        assert [row["epoch"] for row in rows] == [0, 1, 2]
        assert rows[2]["ddl"] > 0
        # the ranks see other batches, so the sum is nnU-Net's mean over the ranks only if the terms were gathered
        assert sums == pytest.approx(losses, rel=1e-5), name


class nnUNetTrainerDSKD_unlabelled_now(nnUNetTrainerDSKD_unlabelled):
    terms = (Unlabelled(weight=0.5),)


def stream_main(rank: int, world: int, file: str, folder: str):
    join(rank, world, file)
    for turn in range(world):  # one after the other, as they write the same files
        if turn == rank:
            trainer = make_trainer(on_cpu(nnUNetTrainerDSKD_unlabelled_now), patch=16, batch_size=4, seed=rank)
            with_data(trainer, size=20)
        distributed.barrier()
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    results = [trainer.train_step(make_batch(trainer, 2 * seed + rank)) for seed in range(3)]
    trainer.on_train_epoch_end(results)
    torch.save(
        (trainer.network.module.state_dict(), trainer.teacher.state_dict()["network"]), f"{folder}/rank{rank}.pth"
    )
    if rank == 0:
        (row,) = trainer.distillation_log.rows
        (nnunet_row,) = trainer.logger.get_checkpoint()["train_losses"]
        torch.save((row, float(nnunet_row)), f"{folder}/row.pth")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_learn_from_images_without_labels_and_stay_identical(nnunet_env):
    mp.spawn(stream_main, args=(2, str(nnunet_env / "rendezvous"), str(nnunet_env)), nprocs=2)
    first, second = (torch.load(nnunet_env / f"rank{rank}.pth") for rank in (0, 1))
    for mine, theirs in zip(first, second, strict=True):
        assert_equal(mine, theirs)
    row, loss = torch.load(nnunet_env / "row.pth")
    assert row["unlabelled"] > 0 and row["segmentation"] == pytest.approx(loss, rel=1e-5)
