"""What ACW-SKD adds to the trainer: parameters of its own, and how they move."""

import pytest
import torch
from toy import initialized, make_batch, make_trainer, run_epoch, start_epoch

from nnunet_skd.acw.method import AdversarialClassWise
from nnunet_skd.trainers.nnUNetTrainerACWSKD import (
    nnUNetTrainerACWSKD,
    nnUNetTrainerACWSKD_noAT,
    nnUNetTrainerACWSKD_noCW,
    nnUNetTrainerACWSKD_noFRM,
)
from nnunet_skd.trainers.nnUNetTrainerDSKD_ACW import nnUNetTrainerDSKD_ACW

pytestmark = pytest.mark.usefixtures("nnunet_env")

TERMS = {"teacher", "token", "adversarial", "class_wise", "class_wise_feature", "reconstruction"}


def term_of(trainer):
    (term,) = (term for term in trainer.loss.terms if term.name == "acw")
    return term


def test_theta_moves_without_momentum_and_decay_and_the_rest_as_the_network():
    trainer = initialized(nnUNetTrainerACWSKD)
    (network,) = trainer.optimizer.param_groups  # nnU-Net's optimizer is what it is without us
    extras, theta = trainer.own_parameters.optimizer.param_groups
    assert theta["params"] == [term_of(trainer).temperature.theta]
    assert (theta["momentum"], theta["nesterov"], theta["weight_decay"]) == (0, False, 0)
    assert all(extras[name] == network[name] for name in ("momentum", "nesterov", "weight_decay", "lr"))
    start_epoch(trainer, 500)
    trainer.train_step(make_batch(trainer))
    assert network["lr"] == extras["lr"] == theta["lr"] < trainer.initial_lr


def test_every_extra_parameter_learns_and_gradients_are_clipped_like_the_networks():
    class Steep(nnUNetTrainerACWSKD):
        terms = (AdversarialClassWise(teacher=1e4),)

    trainer = initialized(Steep)
    start_epoch(trainer, 500)
    parameters = dict(trainer.loss.terms.named_parameters())
    norms = []
    trainer.own_parameters.optimizer.register_step_pre_hook(
        lambda *_: norms.append(torch.nn.utils.get_total_norm([p.grad for p in parameters.values()]).item())
    )
    before = {name: p.detach().clone() for name, p in parameters.items()}
    for seed in range(3):
        trainer.train_step(make_batch(trainer, seed))
    assert norms == pytest.approx([12, 12, 12], rel=1e-4)
    assert all(p.grad.abs().max() > 0 for p in parameters.values())
    unchanged = {name for name, p in parameters.items() if torch.equal(before[name], p)}
    assert all(name.endswith("temperature.theta") for name in unchanged)  # its steps may be below its precision here


@pytest.mark.parametrize("trainer_class", [nnUNetTrainerACWSKD, nnUNetTrainerDSKD_ACW])
def test_begins_from_a_finished_models_last_layer(trainer_class):
    """Where a training begins with all of a model's weights, hT begins with them too, and not with a stranger's."""
    trainer = initialized(trainer_class)
    head = trainer.plain_network().decoder.seg_layers[-1]
    torch.nn.init.normal_(head.weight)
    start_epoch(trainer, 0)
    assert torch.equal(term_of(trainer).branch.teacher_head.weight, head.weight)
    torch.nn.init.normal_(head.weight)
    start_epoch(trainer, 1)
    assert not torch.equal(term_of(trainer).branch.teacher_head.weight, head.weight)


def test_all_distillation_terms_are_zero_at_step_0():
    trainer = initialized(nnUNetTrainerACWSKD)
    start_epoch(trainer, 500)  # the ramp is 1
    trainer.train_step(make_batch(trainer))
    means = trainer.loss.means.pop()
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
    assert set(trainer.loss.means.pop()) & TERMS == terms
    assert any("theta" in name for name, _ in trainer.loss.terms.named_parameters()) == tau


def test_refuses_a_coarse_head_that_nnunet_does_not_train():
    with pytest.raises(ValueError, match="coarse masks.*lowest of the 2 outputs.*four or more stages"):
        make_trainer(nnUNetTrainerACWSKD, stages=3).initialize()


def test_its_parameters_step_under_nnunets_gradient_scaler():
    trainer = make_trainer(nnUNetTrainerACWSKD, stages=4)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)  # as on CUDA
    trainer.initialize()
    assert trainer.own_parameters._grad_scaler is trainer.grad_scaler


def test_warns_of_a_saturated_temperature_and_of_a_term_that_outgrows_the_segmentation():
    trainer = initialized(nnUNetTrainerACWSKD)
    run_epoch(trainer, 0)
    row = trainer.distillation_log.rows[0]
    loss = trainer.loss
    assert loss.warnings([row]) == []
    (warning,) = loss.warnings([row | {"tau": 4.95}] * 5)
    assert "tau = 4.950 has been within 2 % of its bound 5 for 5 epochs" in warning
    (warning,) = loss.warnings([row | {"tau": 1.03}] * 5)
    assert "bound 1 for 5 epochs" in warning
    assert loss.warnings([row | {"tau": 4.95}] * 4) == []
    continued = [{"epoch": 0, "alpha": 0.0}] * 4 + [row]  # from DSKD: no tau before
    assert loss.warnings(continued) == []
    (warning,) = loss.warnings([row | {"share_reconstruction": 0.6, "share_segmentation": 0.2}])
    assert "the reconstruction term is larger than the segmentation loss" in warning
    assert loss.warnings([row | {"share_teacher": 0.6, "share_segmentation": 0.2}]) == []  # it distils nothing


def test_tau_and_the_similarity_are_logged_every_epoch():
    trainer = initialized(nnUNetTrainerDSKD_ACW)
    for epoch in range(2):
        run_epoch(trainer, epoch)
    table = trainer.distillation_log.table()
    assert {"tau", "lambda", "ramp", "inter_class_similarity", "alpha", "share_token"} <= set(table)
    assert table["tau"].between(1, 5).all() and table["inter_class_similarity"].between(-1, 1).all()
    terms = ["segmentation", "ddl", "psdl", *TERMS]
    losses = trainer.logger.get_checkpoint()["train_losses"]
    assert table[terms].sum(axis=1).tolist() == pytest.approx(losses, rel=1e-5)
