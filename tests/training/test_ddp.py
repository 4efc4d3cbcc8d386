"""Two gloo processes on the CPU: the ranks stay identical, and what they log is gathered."""

import json

import pytest
import torch
import torch.multiprocessing as mp
from ddp import join, on_cpu
from torch import distributed
from toy import make_batch, make_trainer, run_epoch

from nnunet_skd.catalogue import trainer_classes
from nnunet_skd.losses.unlabelled import unlabelled_loss


def rank_main(rank: int, world: int, name: str, file: str, folder: str):
    join(rank, world, file)
    trainer = make_trainer(on_cpu(trainer_classes()[name]), patch=16, stages=4, batch_size=4, seed=rank)
    trainer.initialize()

    # rank 0 never sees class 2
    batch_of = make_batch
    import toy

    def rank_batch(trainer, seed=0):
        batch = batch_of(trainer, 2 * seed + rank)
        if rank == 0:
            batch["target"] = [t.clamp(max=1) for t in batch["target"]]
        return batch

    toy.make_batch = rank_batch
    for epoch in range(3):
        run_epoch(trainer, epoch)
    torch.save(trainer.network.module.state_dict() | trainer.loss.terms.state_dict(), f"{folder}/rank{rank}.pth")
    if rank == 0:
        with open(f"{folder}/rows.json", "w") as target:
            losses = trainer.logger.get_checkpoint()["train_losses"]
            names = trainer.loss.names
            json.dump(
                [
                    row | {"sum": sum(row[name] for name in names), "loss": float(loss)}
                    for row, loss in zip(trainer.distillation_log.rows, losses, strict=True)
                ],
                target,
            )
    distributed.destroy_process_group()


def dice_rank(rank: int, world: int, file: str, folder: str):
    join(rank, world, file)
    logits, q = (torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    logits.requires_grad_()
    mine = slice(2 * rank, 2 * rank + 2)
    unlabelled_loss(logits[mine], q.softmax(1)[mine]).backward()
    torch.save(logits.grad / world, f"{folder}/rank{rank}.pth")  # DDP takes the mean over the ranks
    if rank == 0:
        distributed.destroy_process_group()
        logits.grad = None
        unlabelled_loss(logits, q.softmax(1)).backward()
        torch.save(logits.grad, f"{folder}/alone.pth")


@pytest.mark.slow
def test_two_ranks_have_the_dice_of_all_their_patches(nnunet_env):
    mp.spawn(dice_rank, args=(2, str(nnunet_env / "rendezvous"), str(nnunet_env)), nprocs=2)
    first, second, alone = (torch.load(nnunet_env / f"{name}.pth") for name in ("rank0", "rank1", "alone"))
    torch.testing.assert_close(first + second, alone)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nnUNetTrainerDSKD", "nnUNetTrainerDSKD_ACW"])
def test_two_ranks_stay_identical_and_gather_their_terms(nnunet_env, name):
    mp.spawn(rank_main, args=(2, name, str(nnunet_env / "rendezvous"), str(nnunet_env)), nprocs=2)
    first, second = (torch.load(nnunet_env / f"rank{rank}.pth") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    rows = json.loads((nnunet_env / "rows.json").read_text())
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert rows[2]["ddl"] > 0
    # the ranks see other batches, so the sum is nnU-Net's mean over the ranks only if the terms were gathered
    assert [row["sum"] for row in rows] == pytest.approx([row["loss"] for row in rows], rel=1e-5)
