"""The trainer around nnU-Net's: what it adds, and what it must leave alone."""

import copy
import math

import pandas as pd
import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerDiceLoss import nnUNetTrainerDiceLoss
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerNoDeepSupervision import (
    nnUNetTrainerNoDeepSupervision,
)
from toy import FAMILIES, make_batch, make_trainer, nnUNetTrainerDSKD_mixed, run_epoch, start_epoch

from nnunet_skd.catalogue import trainer_classes
from nnunet_skd.trainers.nnUNetTrainerDSKD import (
    nnUNetTrainerDSKD,
    nnUNetTrainerDSKD_5epochs,
    nnUNetTrainerDSKD_noDDL,
    nnUNetTrainerDSKD_noPSDL,
)
from nnunet_skd.trainers.nnUNetTrainerDSKD_ACW import nnUNetTrainerDSKD_ACW_5epochs

pytestmark = pytest.mark.usefixtures("nnunet_env")


class nnUNetTrainerDSKD_weights0(nnUNetTrainerDSKD):
    ddl_weight = 0.0
    psdl_weight = 0.0


def weights(trainer):
    return copy.deepcopy(trainer.network.state_dict())


def everything(trainer):
    """The network's weights and those of ACW-SKD's module."""
    extras = {} if trainer.loss.acw is None else copy.deepcopy(trainer.loss.acw.state_dict())
    return weights(trainer) | {f"acw.{name}": value for name, value in extras.items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("regions", [False, True])
def test_all_weights_zero_is_nnunet_to_the_last_bit_after_20_steps(dim, regions):
    results = []
    for trainer_class in (nnUNetTrainer, nnUNetTrainerDSKD_weights0):
        trainer = make_trainer(trainer_class, dim=dim, regions=regions, ignore=True, patch=16)
        trainer.initialize()
        for epoch in range(2):
            start_epoch(trainer, epoch)
            for seed in range(10):
                trainer.train_step(make_batch(trainer, seed))
        results.append(weights(trainer))
    assert_equal(*results)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("trainer_class", FAMILIES)
def test_trains_every_kind_of_data_and_keeps_nnunets_state_dict(
    dim, residual, regions, ignore, trainer_class, monkeypatch
):
    # no mask of an untrained network hits random labels, and no class-wise term would be at work
    monkeypatch.setattr("nnunet_skd.acw_skd.masks_that_hit", lambda masks, *_, **__: torch.ones(masks.shape[:2]))
    kind = {"dim": dim, "residual": residual, "regions": regions, "ignore": ignore, "patch": 16, "stages": 4}
    trainer = make_trainer(trainer_class, **kind)
    trainer.initialize()
    for epoch in (0, 500):
        start_epoch(trainer, epoch)
        for seed in range(2):
            trainer.train_step(make_batch(trainer, seed))
    means = trainer.loss.pop_means()
    assert all(means[name] != 0 for name in trainer._term_names())
    assert all(math.isfinite(value) for value in means.values())
    assert all(value.isfinite().all() for value in trainer.network.state_dict().values())

    stock = make_trainer(nnUNetTrainer, **kind)
    stock.initialize()
    stock.network.load_state_dict(trainer.network.state_dict(), strict=True)


@pytest.mark.parametrize("trainer_class", FAMILIES)
def test_trains_the_second_stage_of_a_cascade(trainer_class):
    trainer = make_trainer(trainer_class, dim=3, cascade=True, patch=16, stages=4)
    trainer.initialize()
    assert trainer.is_cascaded and trainer.num_input_channels == 3
    for epoch in (0, 500):
        start_epoch(trainer, epoch)
        trainer.train_step(make_batch(trainer))
        trainer.train_step(make_batch(trainer, 1))
    assert all(trainer.loss.pop_means()[name] != 0 for name in trainer._term_names()[:1])


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("trainer_class", FAMILIES)
def test_a_batch_that_is_ignored_everywhere_is_survived(trainer_class, regions):
    trainer = make_trainer(trainer_class, regions=regions, ignore=True, stages=4)
    trainer.initialize()
    start_epoch(trainer, 500)
    batch = make_batch(trainer)
    for target in batch["target"]:
        if regions:
            target[:, -1] = True
        else:
            target.fill_(3)
    assert math.isfinite(trainer.train_step(batch)["loss"])
    trainer.train_step(make_batch(trainer))
    assert all(value.isfinite().all() for value in everything(trainer).values())


def test_validation_loss_is_nnunets_own():
    losses = []
    for trainer_class in (nnUNetTrainer, *FAMILIES):
        trainer = make_trainer(trainer_class, stages=4)
        trainer.initialize()
        start_epoch(trainer, 3)
        trainer.on_validation_epoch_start()
        with torch.no_grad():
            losses.append(trainer.validation_step(make_batch(trainer))["loss"].item())
    assert losses == [losses[0]] * 5


def test_the_teacher_is_the_network_at_the_end_of_the_previous_epoch():
    trainer = make_trainer(nnUNetTrainerDSKD)
    trainer.initialize()
    start_epoch(trainer, 0)
    trainer.train_step(make_batch(trainer, 0))
    assert "ddl" not in trainer.loss.pop_means()  # no teacher yet

    batch = make_batch(trainer, 1)
    end_of_epoch = weights(trainer)
    start_epoch(trainer, 1)
    trainer.train_step(make_batch(trainer, 1))
    assert abs(trainer.loss.pop_means()["ddl"]) < 1e-7  # student and teacher are still the same, up to rounding
    trainer.train_step(make_batch(trainer, 2))
    assert trainer.loss.pop_means()["ddl"] > 1e-7

    outputs = trainer.teacher(batch["data"])
    assert [tuple(x.shape[2:]) for x in outputs] == [(32, 32), (16, 16)]
    assert not any(x.requires_grad for x in outputs)
    trainer.network.load_state_dict(end_of_epoch)
    expected = trainer.network(batch["data"])
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))


def test_alpha_rises_linearly_with_the_epochs():
    trainer = make_trainer(nnUNetTrainerDSKD)
    trainer.initialize()
    alphas = []
    for epoch in (0, 500, 999):
        start_epoch(trainer, epoch)
        alphas.append(trainer.loss.alpha)
    assert alphas == pytest.approx([0.0, 0.25, 0.4995])


@pytest.mark.parametrize("trainer_class", [nnUNetTrainerDSKD_noDDL, nnUNetTrainerDSKD_noPSDL])
def test_an_ablation_drops_its_term(trainer_class):
    trainer = make_trainer(trainer_class)
    trainer.initialize()
    start_epoch(trainer, 1)
    trainer.train_step(make_batch(trainer))
    dropped = trainer_class.__name__.split("_no")[1].lower()
    assert set(trainer.loss.pop_means()) == {"segmentation", "ddl", "psdl"} - {dropped}


def save_as_of_this_epoch(trainer, file):
    """After run_epoch, which counts the epoch up; nnU-Net saves just before."""
    trainer.current_epoch -= 1
    trainer.save_checkpoint(str(file))
    trainer.current_epoch += 1


@pytest.mark.parametrize(
    ("trainer_class", "regions"),
    [(nnUNetTrainerDSKD_5epochs, False), (nnUNetTrainerDSKD_5epochs, True), (nnUNetTrainerDSKD_ACW_5epochs, False)],
)
def test_a_continued_training_equals_the_uninterrupted_one(trainer_class, regions, tmp_path):
    """Stopped after epoch 1, then killed in the middle of epoch 2: both times the last checkpoint decides."""
    whole = make_trainer(trainer_class, stages=4, regions=regions)
    whole.initialize()
    for epoch in range(4):
        run_epoch(whole, epoch)
        if epoch == 1:
            save_as_of_this_epoch(whole, tmp_path / "checkpoint_latest.pth")
    expected, rows = everything(whole), whole.distillation_log.rows

    for steps_before_the_kill in (0, 3):
        continued = make_trainer(trainer_class, stages=4, regions=regions, seed=1)
        continued.load_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
        assert continued.current_epoch == 2
        start_epoch(continued, 2)
        for seed in range(steps_before_the_kill):
            continued.train_step(make_batch(continued, seed))

        continued = make_trainer(trainer_class, stages=4, regions=regions, seed=2)
        continued.load_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
        for epoch in range(continued.current_epoch, 4):
            run_epoch(continued, epoch)
        assert_equal(everything(continued), expected)
        assert continued.distillation_log.rows == [pytest.approx(row, rel=1e-6, nan_ok=True) for row in rows]


def test_a_checkpoint_of_stock_nnunet_can_be_continued(tmp_path):
    stock = make_trainer(nnUNetTrainer)
    stock.initialize()
    run_epoch(stock, 0)
    save_as_of_this_epoch(stock, tmp_path / "stock.pth")

    trainer = make_trainer(nnUNetTrainerDSKD, seed=1)
    trainer.load_checkpoint(str(tmp_path / "stock.pth"))
    assert_equal(weights(trainer), weights(stock))
    run_epoch(trainer, 1)
    assert trainer.distillation_log.rows[0]["epoch"] == 1
    assert trainer.distillation_log.rows[0]["ddl"] > 0


def test_a_checkpoint_of_stock_nnunet_serves_as_pretrained_weights(tmp_path):
    stock = make_trainer(nnUNetTrainer)
    stock.initialize()
    stock.save_checkpoint(str(tmp_path / "stock.pth"))

    trainer = make_trainer(nnUNetTrainerDSKD, seed=1)
    trainer.initialize()
    load_pretrained_weights(trainer.network, str(tmp_path / "stock.pth"))
    ours, theirs = weights(trainer), weights(stock)
    assert all(
        torch.equal(ours[name], theirs[name]) == (".seg_layers." not in name) for name in ours if "weight" in name
    )
    for epoch in range(2):
        run_epoch(trainer, epoch)
    assert trainer.distillation_log.rows[1]["ddl"] > 0


def test_a_kill_while_saving_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    trainer = make_trainer(nnUNetTrainerDSKD)
    trainer.initialize()
    file = tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(file))
    before = file.read_bytes()

    def dies_half_way(checkpoint, filename):
        with open(filename, "wb") as half:
            half.write(before[: len(before) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", dies_half_way)
    with pytest.raises(KeyboardInterrupt):
        trainer.save_checkpoint(str(file))
    assert file.read_bytes() == before


def test_disabled_checkpointing_writes_nothing(tmp_path):
    trainer = make_trainer(nnUNetTrainerDSKD)
    trainer.initialize()
    trainer.disable_checkpointing = True
    trainer.save_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    assert list(tmp_path.glob("*.pth*")) == []


def test_every_epoch_leaves_a_row_a_line_and_a_plot(tmp_path):
    trainer = make_trainer(nnUNetTrainerDSKD)
    trainer.initialize()
    logged = []

    class ExternalLogger:
        def log(self, key, value, step):
            logged.append((key, value, step))

    trainer.logger.loggers.append(ExternalLogger())
    for epoch in range(3):
        run_epoch(trainer, epoch)
    table = pd.read_csv(f"{trainer.output_folder}/distillation.csv")
    names = ["segmentation", "ddl", "psdl"]
    assert list(table) == ["epoch", *names, *(f"share_{name}" for name in names), "alpha"]
    assert table["epoch"].tolist() == [0, 1, 2]
    assert table.filter(regex="share_").sum(axis=1).tolist() == pytest.approx([1, 1, 1])
    train_losses = trainer.logger.get_value("train_losses", step=None)
    assert table[names].sum(axis=1).tolist() == pytest.approx(train_losses, rel=1e-5)
    with open(trainer.log_file) as log:
        assert sum("Distillation segmentation" in line for line in log) == 3
    assert open(f"{trainer.output_folder}/distillation.png", "rb").read(4) == b"\x89PNG"
    assert ("distillation/alpha", pytest.approx(0.001), 2) in logged
    assert {key for key, _, _ in logged if key.startswith("distillation/")} == {
        f"distillation/{name}" for name in table.columns[1:]
    }


def test_a_new_training_moves_the_old_record_aside():
    for _ in range(2):
        trainer = make_trainer(nnUNetTrainerDSKD)
        trainer.initialize()
        run_epoch(trainer, 0)
    assert len(list(trainer.distillation_log.csv.parent.glob("distillation*.csv"))) == 2


def test_the_predict_command_is_printed_at_the_end():
    trainer = make_trainer(nnUNetTrainerDSKD)
    trainer.initialize()
    run_epoch(trainer, 0)
    trainer.on_train_end()
    assert (
        "nnUNetv2_predict -i INPUT_FOLDER -o OUTPUT_FOLDER -d Dataset900_Toy -c 2d -tr nnUNetTrainerDSKD "
        "-p nnUNetPlans -f 0 -device cpu"
    ) in open(trainer.log_file).read()


def test_refuses_deep_supervision_off():
    class nnUNetTrainerDSKD_NoDeepSupervision(nnUNetTrainerDSKD, nnUNetTrainerNoDeepSupervision):
        pass

    with pytest.raises(NotImplementedError, match="deep supervision is switched off"):
        make_trainer(nnUNetTrainerDSKD_NoDeepSupervision).initialize()


def test_refuses_a_single_output():
    with pytest.raises(NotImplementedError, match="gives 1: its network has 2 stages.*three or more stages"):
        make_trainer(nnUNetTrainerDSKD, stages=2).initialize()


def test_refuses_a_network_without_outputs_to_distil_from():
    class nnUNetTrainerDSKD_OtherNetwork(nnUNetTrainerDSKD):
        @staticmethod
        def build_network_architecture(plans_manager, configuration_manager, c_in, c_out, enable_deep_supervision=True):
            return torch.nn.Conv2d(c_in, c_out, 1)

    with pytest.raises(NotImplementedError, match="Conv2d has none.*planners"):
        make_trainer(nnUNetTrainerDSKD_OtherNetwork).initialize()


def test_refuses_a_loss_without_cross_entropy_for_the_pixelwise_term():
    class nnUNetTrainerDSKD_DiceLoss(nnUNetTrainerDSKD, nnUNetTrainerDiceLoss):
        pass

    with pytest.raises(NotImplementedError, match="not nnU-Net's Dice and cross-entropy.*psdl_weight = 0"):
        make_trainer(nnUNetTrainerDSKD_DiceLoss).initialize()


def test_refuses_label_smoothing_where_the_pixelwise_term_would_not_complete_it():
    class nnUNetTrainerDSKD_Smooth(nnUNetTrainerDSKD):
        def _build_loss(self):
            loss = super()._build_loss()
            loss.loss.ce.label_smoothing = 0.1
            return loss

    with pytest.raises(NotImplementedError, match="without class weights or label smoothing"):
        make_trainer(nnUNetTrainerDSKD_Smooth).initialize()


@pytest.mark.parametrize("partner", [nnUNetTrainerNoMirroring, nnUNetTrainerDA5])
def test_combines_with_nnunets_variants_by_inheritance(partner):
    combined = type(f"nnUNetTrainerDSKD_{partner.__name__}", (nnUNetTrainerDSKD, partner), {})
    trainer = make_trainer(combined)
    trainer.initialize()
    _, _, _, mirror_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    _, _, _, expected = make_trainer(partner).configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert mirror_axes == expected
    assert combined.get_training_transforms is partner.get_training_transforms
    start_epoch(trainer, 1)
    trainer.train_step(make_batch(trainer))
    assert "ddl" in trainer.loss.pop_means()


def test_catalogue_is_complete_and_defines_no_init():
    classes = trainer_classes()
    epochs = {"1epoch": 1} | {f"{n}epochs": n for n in (5, 10, 20, 50, 100, 250, 500)}
    for family in ("nnUNetTrainerDSKD", "nnUNetTrainerACWSKD", "nnUNetTrainerDSKD_ACW"):
        assert make_trainer(classes[family]).num_epochs == 1000
        for suffix, number in epochs.items():
            assert make_trainer(classes[f"{family}_{suffix}"]).num_epochs == number
    assert all("__init__" not in vars(trainer_class) for trainer_class in classes.values())
    assert not any("__" in name for name in classes)  # nnU-Net splits its folder names there


def test_fp16_extremes_do_not_break_a_step():
    """Half-precision outputs at +-1e4, as mixed precision may produce them, in the terms that the trainer adds."""
    trainer = make_trainer(nnUNetTrainerDSKD, ignore=True)
    trainer.initialize()
    start_epoch(trainer, 500)
    batch = make_batch(trainer)
    outputs = [torch.full((2, 3, *t.shape[2:]), -1e4, dtype=torch.float16) for t in batch["target"]]
    for x in outputs:
        x[:, 0] = 1e4
        x.requires_grad_()
    terms = trainer.loss._dskd_terms(
        outputs, batch["target"], [-x.detach() for x in outputs], *trainer.loss._split(batch["target"][0])
    )
    sum(terms.values()).backward()
    assert set(terms) == {"ddl", "psdl"} and all(x.isfinite() for x in terms.values())
    assert outputs[0].grad.isfinite().all()


@pytest.mark.parametrize("regions", [False, True])
def test_shares_probabilities_with_nnunets_dice_unless_it_is_compiled(regions):
    for compiled in (False, True):

        class nnUNetTrainerDSKD_Dice(nnUNetTrainerDSKD):
            def _build_loss(self, compiled=compiled):
                loss = super()._build_loss()
                if compiled:
                    loss.loss.dc = torch.compile(loss.loss.dc, backend="eager")
                return loss

        trainer = make_trainer(nnUNetTrainerDSKD_Dice, regions=regions)
        trainer.initialize()
        assert (trainer.loss._shared is None) == compiled


def test_refuses_an_unknown_target_of_the_deep_distribution_loss():
    class nnUNetTrainerDSKD_Typo(nnUNetTrainerDSKD):
        ddl_target = "mix"

    with pytest.raises(ValueError, match="ddl_target must be one of .* got 'mix'"):
        make_trainer(nnUNetTrainerDSKD_Typo).initialize()


def test_the_mixed_target_alone_logs_its_alpha():
    class nnUNetTrainerDSKD_MixedOnly(nnUNetTrainerDSKD_mixed):
        psdl_weight = 0.0

    trainer = make_trainer(nnUNetTrainerDSKD_MixedOnly)
    trainer.initialize()
    for epoch in range(2):
        run_epoch(trainer, epoch)
    assert trainer.distillation_log.rows[1]["alpha"] == pytest.approx(0.0005)
    assert trainer.distillation_log.rows[1]["ddl"] > 0
