"""What ACW-SKD adds to the trainer: parameters of its own, their optimizer groups and their place in a checkpoint."""

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam
from toy import make_batch, make_trainer, run_epoch, start_epoch

from nnunet_skd.trainers.nnUNetTrainerACWSKD import (
    nnUNetTrainerACWSKD,
    nnUNetTrainerACWSKD_noAT,
    nnUNetTrainerACWSKD_noCW,
    nnUNetTrainerACWSKD_noFRM,
)
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD
from nnunet_skd.trainers.nnUNetTrainerDSKD_ACW import nnUNetTrainerDSKD_ACW

pytestmark = pytest.mark.usefixtures("nnunet_env")

TERMS = {"teacher", "token", "adversarial", "class_wise", "class_wise_feature", "reconstruction"}


def initialized(trainer_class, **kind):
    trainer = make_trainer(trainer_class, stages=4, **kind)
    trainer.initialize()
    return trainer


def saved(trainer, file):
    run_epoch(trainer, 0)
    trainer.current_epoch -= 1  # nnU-Net saves before it counts the epoch up
    trainer.save_checkpoint(str(file))
    return str(file)


def test_theta_has_a_group_without_momentum_and_decay_and_the_rest_is_as_the_network():
    trainer = initialized(nnUNetTrainerACWSKD)
    network, extras, theta = trainer.optimizer.param_groups
    assert theta["params"] == [trainer.loss.acw.temperature.theta]
    assert (theta["momentum"], theta["nesterov"], theta["weight_decay"]) == (0, False, 0)
    assert all(extras[name] == network[name] for name in ("momentum", "nesterov", "weight_decay", "lr"))
    start_epoch(trainer, 500)
    assert network["lr"] == extras["lr"] == theta["lr"] < trainer.initial_lr


def test_every_extra_parameter_learns_and_gradients_are_clipped_like_the_networks():
    class Steep(nnUNetTrainerACWSKD):
        teacher_weight = 1e4

    trainer = initialized(Steep)
    start_epoch(trainer, 500)
    parameters = dict(trainer.loss.acw.named_parameters())
    norms = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: norms.append(torch.nn.utils.get_total_norm([p.grad for p in parameters.values()]).item())
    )
    before = {name: p.detach().clone() for name, p in parameters.items()}
    for seed in range(3):
        trainer.train_step(make_batch(trainer, seed))
    assert norms == pytest.approx([12, 12, 12], rel=1e-4)
    assert all(p.grad.abs().max() > 0 for p in parameters.values())
    unchanged = {name for name, p in parameters.items() if torch.equal(before[name], p)}
    assert unchanged <= {"temperature.theta"}  # its plain steps may be below the precision of theta = 1 here


def test_all_distillation_terms_are_zero_at_step_0():
    trainer = initialized(nnUNetTrainerACWSKD)
    start_epoch(trainer, 500)  # the ramp is 1
    trainer.train_step(make_batch(trainer))
    means = trainer.loss.pop_means()
    assert all(means[name] == 0 for name in TERMS - {"teacher", "token"})
    assert means["ramp"] == 1 and means["lambda"] == 1 and means["tau"] == pytest.approx(3.924, abs=1e-3)


@pytest.mark.parametrize(
    ("trainer_class", "terms", "tau"),
    [
        (nnUNetTrainerACWSKD, TERMS, True),
        (nnUNetTrainerACWSKD_noFRM, {"teacher", "adversarial"}, True),
        (nnUNetTrainerACWSKD_noCW, {"teacher", "adversarial", "reconstruction"}, True),
        (nnUNetTrainerACWSKD_noAT, TERMS - {"adversarial"}, False),
    ],
)
def test_ablations_drop_their_terms(trainer_class, terms, tau):
    trainer = initialized(trainer_class)
    start_epoch(trainer, 500)
    trainer.train_step(make_batch(trainer))
    assert set(trainer.loss.pop_means()) & TERMS == terms
    assert any("theta" in name for name, _ in trainer.loss.acw.named_parameters()) == tau


def test_a_checkpoint_is_nnunets_own_plus_one_key_of_tensors(tmp_path):
    trainer = initialized(nnUNetTrainerACWSKD)
    file = saved(trainer, tmp_path / "checkpoint_latest.pth")
    checkpoint = torch.load(file, weights_only=False)
    stock = initialized(nnUNetTrainer)
    stock.network.load_state_dict(checkpoint["network_weights"], strict=True)
    stock_file = tmp_path / "stock.pth"
    stock.save_checkpoint(str(stock_file))
    assert set(checkpoint) == set(torch.load(stock_file, weights_only=False)) | {"distillation"}
    assert all(type(value) is torch.Tensor for value in checkpoint["distillation"].values())

    again = initialized(nnUNetTrainerACWSKD, seed=1)
    again.load_checkpoint(file)
    state = trainer.loss.acw.state_dict()
    assert all(torch.equal(state[name], value) for name, value in again.loss.acw.state_dict().items())
    assert len(again.optimizer.state) == len(trainer.optimizer.state)


@pytest.mark.parametrize("other", [nnUNetTrainer, nnUNetTrainerDSKD])
def test_a_checkpoint_without_the_extras_is_continued_and_said_so(other, tmp_path):
    source = initialized(other)
    if other is nnUNetTrainer:
        start_epoch(source, 0)
        source.train_step(make_batch(source))
        for key in ("train_losses", "val_losses", "mean_fg_dice"):
            source.logger.log(key, 0.0, 0)
        source.save_checkpoint(str(tmp_path / "other.pth"))
    else:
        saved(source, tmp_path / "other.pth")
    file = str(tmp_path / "other.pth")

    trainer = initialized(nnUNetTrainerDSKD_ACW, seed=1)
    trainer.load_checkpoint(file)
    assert trainer.current_epoch == 1 and len(trainer.optimizer.param_groups) == 3
    head, teacher_head = trainer.network.decoder.seg_layers[-1], trainer.loss.acw.teacher_head
    assert torch.equal(head.weight, source.network.decoder.seg_layers[-1].weight)
    assert torch.equal(head.weight, teacher_head.weight) and torch.equal(head.bias, teacher_head.bias)
    momenta = [
        trainer.optimizer.state[p]["momentum_buffer"]
        for p in trainer.network.parameters()
        if p in trainer.optimizer.state
    ]
    assert momenta and all(m.isfinite().all() for m in momenta)
    log = open(trainer.log_file).read()
    assert f"was written by {other.__name__} and holds no state" in log and "start anew" in log
    start_epoch(trainer, 1)
    trainer.train_step(make_batch(trainer))


@pytest.mark.parametrize("other", [nnUNetTrainerACWSKD_noAT, nnUNetTrainerDSKD])
def test_refuses_the_state_of_other_modules(other, tmp_path):
    file = saved(initialized(nnUNetTrainerACWSKD), tmp_path / "checkpoint_latest.pth")
    trainer = initialized(other)
    with pytest.raises(RuntimeError, match="was written by nnUNetTrainerACWSKD .*-pretrained_weights"):
        trainer.load_checkpoint(file)


def test_refuses_an_optimizer_that_would_run_the_temperature_to_its_bound():
    class nnUNetTrainerACWSKD_Adam(nnUNetTrainerACWSKD, nnUNetTrainerAdam):
        pass

    with pytest.raises(NotImplementedError, match="plain gradient steps, and AdamW? makes others"):
        initialized(nnUNetTrainerACWSKD_Adam)

    class nnUNetTrainerACWSKD_noAT_Adam(nnUNetTrainerACWSKD_noAT, nnUNetTrainerAdam):
        pass

    initialized(nnUNetTrainerACWSKD_noAT_Adam)


def test_refuses_a_coarse_head_that_nnunet_does_not_train():
    with pytest.raises(NotImplementedError, match="coarse masks.*lowest of the 2 outputs.*four or more stages"):
        make_trainer(nnUNetTrainerACWSKD, stages=3).initialize()


def test_warns_of_a_saturated_temperature_and_of_a_term_that_outgrows_the_segmentation():
    trainer = initialized(nnUNetTrainerACWSKD)
    run_epoch(trainer, 0)
    row = trainer.distillation_log.rows[0]
    assert trainer._warnings(row) == []
    trainer.distillation_log.rows = [row | {"tau": 4.95}] * 5
    (warning,) = trainer._warnings(row | {"tau": 4.95})
    assert "tau = 4.950 has been within 2 % of its bound 5 for 5 epochs" in warning
    trainer.distillation_log.rows = [{"epoch": 0, "alpha": 0.0}] * 4 + [row]  # continued from DSKD: no tau before
    assert trainer._warnings(row) == []
    trainer.distillation_log.rows = [row] * 5
    (warning,) = trainer._warnings(row | {"share_reconstruction": 0.6, "share_segmentation": 0.2})
    assert "the reconstruction term is larger than the segmentation loss" in warning


def test_tau_and_the_similarity_are_logged_every_epoch():
    trainer = initialized(nnUNetTrainerDSKD_ACW)
    for epoch in range(2):
        run_epoch(trainer, epoch)
    table = trainer.distillation_log.table()
    assert {"tau", "lambda", "ramp", "inter_class_similarity", "alpha", "share_token"} <= set(table)
    assert table["tau"].between(1, 5).all() and table["inter_class_similarity"].between(-1, 1).all()
    terms = ["segmentation", "ddl", "psdl", *TERMS]
    losses = trainer.logger.get_value("train_losses", step=None)
    assert table[terms].sum(axis=1).tolist() == pytest.approx(losses, rel=1e-5)
