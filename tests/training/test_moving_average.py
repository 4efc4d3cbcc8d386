"""The moving average: its closed form, buffers, mirroring, its place in checkpoints, DDP, compiling."""

import copy
import os
import random

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from ddp import join, on_cpu
from torch import distributed, nn
from toy import assert_equal, everything, initialized, make_batch, make_trainer, run_epoch, save_as_of_this_epoch
from toy_data import with_data

from nnunet_skd.compat import set_variables
from nnunet_skd.losses.unlabelled import Unlabelled
from nnunet_skd.teachers import MovingAverage, Teacher
from nnunet_skd.tools.demo.state import NNUNET_FOLDERS
from nnunet_skd.trainers.nnUNetTrainerDSKD_unlabelled import nnUNetTrainerDSKD_unlabelled

pytestmark = pytest.mark.usefixtures("nnunet_env")


class nnUNetTrainerDSKD_unlabelled_now(nnUNetTrainerDSKD_unlabelled):
    """Teaches from the first step."""

    terms = (Unlabelled(weight=0.5),)

    def initialize(self):
        self.num_epochs = 4
        super().initialize()


class ToyTrainer:
    """The least that a teacher asks of a trainer."""

    inference_allowed_mirroring_axes = (0, 1)

    def __init__(self, network):
        self.network = network

    def plain_network(self):
        return self.network

    def _do_i_compile(self):
        return False


class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, x):
        return [self.layers(x)]


def attached(network, **options):
    teacher = MovingAverage(**options)
    teacher.attach(ToyTrainer(network))
    return teacher


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_closed_form_after_n_steps(decay):
    network = nn.Linear(1, 1).double()
    teacher = attached(network, decay=decay)
    values = [network.weight.item()]
    for step in range(1, 13):
        nn.init.constant_(network.weight, step**2)
        values.append(float(step**2))
        teacher.after_step()
    shares = [1.0]  # of each value in the average
    for step in range(1, 13):
        d = min(1 - 1 / (step + 1), decay)
        shares = [d * share for share in shares] + [1 - d]
    assert sum(shares) == pytest.approx(1)
    expected = sum(share * value for share, value in zip(shares, values, strict=True))
    assert teacher._copy.module.weight.item() == pytest.approx(expected, rel=1e-12)
    if decay == 0.99:  # a plain mean at first
        assert expected == pytest.approx(sum(values) / 13)


def test_buffers_are_the_networks_and_the_copy_only_listens():
    network = Normalised().train()
    teacher = attached(network)
    for seed in range(3):
        network(torch.full((2, 1, 8, 8), float(seed)))
        teacher.after_step()
    average = teacher._copy.module
    for (name, mine), theirs in zip(average.named_buffers(), network.buffers(), strict=True):
        assert torch.equal(mine, theirs) and mine is not theirs, name
    assert average.layers[1].num_batches_tracked == 3
    before = copy.deepcopy(average.state_dict())
    data = torch.randn(2, 1, 8, 8)
    (first,), (second,) = teacher(data), teacher(data)
    assert torch.equal(first, second) and not first.requires_grad  # no dropout
    assert_equal(average.state_dict(), before)
    assert not any(p.requires_grad for p in average.parameters())


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2])
def test_refuses_a_decay_that_is_none(decay):
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\)"):
        MovingAverage(decay=decay)


# --- mirroring -------------------------------------------------------------------------------------------------------


class Asymmetric(Teacher):
    """Says something else about a mirrored image; outputs at two resolutions, and one that is missing."""

    def __init__(self, dim, **options):
        super().__init__(**options)
        torch.manual_seed(0)
        self.full = (nn.Conv2d if dim == 2 else nn.Conv3d)(1, 2, 3, padding=1)

    def outputs(self, data):
        return [self.full(data), None, self.full(data)[(..., *(slice(None, None, 2),) * (data.dim() - 2))]]


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("mirrored", ["all", "first", "none"])
def test_on_average_it_says_what_nnunets_mirrored_prediction_says(dim, mirrored, monkeypatch):
    from itertools import combinations, product

    axes = {"all": tuple(range(dim)), "first": (0,), "none": ()}[mirrored]
    trainer = ToyTrainer(None)
    trainer.inference_allowed_mirroring_axes = axes or None
    teacher = Asymmetric(dim, mirror=True)
    teacher.attach(trainer)
    data = torch.randn(1, 1, *(8,) * dim)
    outputs = []
    for flips in product((0.0, 1.0), repeat=len(axes)):
        draws = iter(flips)
        monkeypatch.setattr(random, "random", lambda draws=draws: next(draws))
        outputs.append(teacher(data))
        assert next(draws, None) is None  # one draw for each axis that nnU-Net mirrors
    with torch.no_grad():  # nnUNetPredictor._internal_maybe_mirror_and_predict
        expected = teacher.full(data)
        flips = [c for i in range(len(axes)) for c in combinations([a + 2 for a in axes], i + 1)]
        for flip in flips:
            expected = expected + teacher.full(data.flip(flip)).flip(flip)
        expected /= len(flips) + 1
    torch.testing.assert_close(torch.stack([x[0] for x in outputs]).mean(0), expected)
    assert all(x[1] is None and x[2].shape[2:] == (4,) * dim for x in outputs)


def test_does_not_mirror_unasked(monkeypatch):
    teacher = Asymmetric(2)
    teacher.attach(ToyTrainer(None))
    monkeypatch.setattr(random, "random", lambda: 0.0)
    data = torch.randn(1, 1, 8, 8)
    assert torch.equal(teacher(data)[0], teacher.full(data))


# --- in a training ---------------------------------------------------------------------------------------------------


def seeded_epoch(trainer, epoch):
    """nnU-Net does not store random states, so that the epochs of two trainings draw alike only if they begin so."""
    random.seed(epoch)
    np.random.seed(epoch)
    torch.manual_seed(epoch)
    run_epoch(trainer, epoch, steps=2)


def of_the_teacher(trainer):
    return {name: value.clone() for name, value in trainer.teacher.state_dict()["network"].items()}


def new_trainer(seed=0, **kind):
    trainer = with_data(make_trainer(nnUNetTrainerDSKD_unlabelled_now, patch=16, seed=seed, **kind), size=20)
    return trainer


@pytest.mark.parametrize("ignore", [False, True])
def test_a_continued_training_equals_the_uninterrupted_one(ignore, tmp_path):
    whole = new_trainer(ignore=ignore)
    whole.on_train_start()
    for epoch in range(4):
        seeded_epoch(whole, epoch)
        if epoch == 1:
            file = save_as_of_this_epoch(whole, tmp_path / "checkpoint_latest.pth")
    continued = new_trainer(seed=1, ignore=ignore)
    continued.load_checkpoint(file)
    continued.on_train_start()
    for epoch in (2, 3):
        seeded_epoch(continued, epoch)
    assert_equal(everything(continued), everything(whole))
    assert_equal(of_the_teacher(continued), of_the_teacher(whole))
    assert continued.teacher.state_dict()["steps"] == whole.teacher.state_dict()["steps"] == 8
    rows = whole.distillation_log.rows
    assert continued.distillation_log.rows == [pytest.approx(row, rel=1e-6, nan_ok=True) for row in rows]
    assert rows[0]["unlabelled"] > 0 and ("ignored" in rows[0]) == ignore


def test_begins_anew_from_the_state_of_another_teacher():
    teacher = MovingAverage()
    teacher.load_state_dict({"folders": ["somewhere"]})
    assert teacher.state_dict() == {}


def test_its_state_lies_in_the_checkpoints_extra_key_alone(tmp_path):
    trainer = new_trainer()
    trainer.on_train_start()
    names = set(initialized(nnUNetTrainerDSKD_unlabelled_now, stages=3).network.state_dict())
    run_epoch(trainer, 0)
    checkpoint = torch.load(save_as_of_this_epoch(trainer, tmp_path / "checkpoint.pth"), weights_only=False)
    assert set(checkpoint["network_weights"]) == set(trainer.network.state_dict()) == names
    state = checkpoint["distillation"]["teacher"]
    assert set(state) == {"steps", "network"} and set(state["network"]) == names
    assert len(trainer.optimizer.param_groups[0]["params"]) == len(list(trainer.network.parameters()))
    assert not torch.equal(*(next(iter(x.values())) for x in (state["network"], checkpoint["network_weights"])))


def test_begins_anew_from_a_checkpoint_without_it(tmp_path):
    stock = initialized(nnUNetTrainerDSKD_unlabelled_now.__mro__[3], stages=3, patch=16)  # nnUNetTrainer
    file = save_as_of_this_epoch(stock, tmp_path / "stock.pth")
    trainer = new_trainer(seed=1)
    trainer.load_checkpoint(file)
    trainer.on_train_start()
    assert_equal(of_the_teacher(trainer), dict(stock.network.state_dict()))


@pytest.mark.slow
def test_compiled_steps_equal_eager_steps_and_no_view_compiles_anew(aot_eager):
    results, graphs = [], []
    for compiled in (False, True):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        trainer = new_trainer()
        trainer._do_i_compile = lambda compiled=compiled: compiled
        trainer.on_train_start()
        trainer.network.train()
        trainer.loss.train()
        for seed in range(10):
            random.seed(seed)
            torch.manual_seed(seed)
            np.random.seed(seed)
            trainer.loss.start_epoch(1, 4)
            loss = trainer.train_step(make_batch(trainer, seed))["loss"].item()
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        results.append([loss, trainer.loss.means.pop()["unlabelled"]])
    assert results[1] == pytest.approx(results[0], rel=1e-4)
    assert graphs[9] == 0 and graphs[10] == graphs[19] > 0  # the first step compiles all that ever runs


def rank_main(rank: int, world: int, rendezvous: str, folder: str):
    join(rank, world, rendezvous)
    trainer_class = on_cpu(nnUNetTrainerDSKD_unlabelled_now)
    for ignore in (False, True):
        # each rank has a root of its own, as a shared one would be written by both
        roots = {name: f"{folder}/{rank}/{ignore}/{name}" for name in NNUNET_FOLDERS}
        set_variables(roots)
        for root in roots.values():
            os.makedirs(root)
        trainer = with_data(make_trainer(trainer_class, patch=16, batch_size=4, seed=rank, ignore=ignore), size=20)
        trainer.on_train_start()
        random.seed(rank)
        torch.manual_seed(rank)
        np.random.seed(rank)
        for epoch in range(2):
            run_epoch(trainer, epoch, steps=2)
        state = dict(trainer.network.module.state_dict())
        state |= {f"teacher.{name}": value for name, value in of_the_teacher(trainer).items()}
        state["highest"] = trainer.loss.terms[0].highest
        torch.save(state, f"{folder}/{ignore}_{rank}.pth")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_is_equal_on_all_ranks(nnunet_env):
    mp.spawn(rank_main, args=(2, str(nnunet_env / "rendezvous"), str(nnunet_env)), nprocs=2)
    for ignore in (False, True):
        first, second = (torch.load(nnunet_env / f"{ignore}_{rank}.pth") for rank in (0, 1))
        assert_equal(first, second)
