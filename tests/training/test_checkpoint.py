"""Checkpoints: nnU-Net's own plus one key, written once and whole, and continued exactly or refused by name."""

import inspect
import math
import os

import pandas as pd
import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from toy import (
    FAMILIES,
    assert_equal,
    everything,
    initialized,
    make_batch,
    run_epoch,
    save_as_of_this_epoch,
    start_epoch,
)

from nnunet_skd.acw.method import AdversarialClassWise
from nnunet_skd.losses.deep_distribution import DeepDistribution
from nnunet_skd.losses.pixelwise import Pixelwise
from nnunet_skd.trainer import SelfDistillationTrainer
from nnunet_skd.trainers.nnUNetTrainerACWSKD import nnUNetTrainerACWSKD, nnUNetTrainerACWSKD_noAT
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD, nnUNetTrainerDSKD_5epochs
from nnunet_skd.trainers.nnUNetTrainerDSKD_ACW import nnUNetTrainerDSKD_ACW, nnUNetTrainerDSKD_ACW_5epochs

pytestmark = pytest.mark.usefixtures("nnunet_env")


def log_of(trainer) -> str:
    return open(trainer.log_file).read()


def saved(trainer, file) -> str:
    run_epoch(trainer, 0)
    return save_as_of_this_epoch(trainer, file)


@pytest.mark.parametrize(
    ("trainer_class", "regions"),
    [(nnUNetTrainerDSKD_5epochs, False), (nnUNetTrainerDSKD_5epochs, True), (nnUNetTrainerDSKD_ACW_5epochs, False)],
)
def test_a_continued_training_equals_the_uninterrupted_one(trainer_class, regions, tmp_path):
    """Stopped after epoch 1, then killed in the middle of epoch 2: both times the last checkpoint decides."""
    file = tmp_path / "checkpoint_latest.pth"
    whole = initialized(trainer_class, regions=regions)
    for epoch in range(4):
        run_epoch(whole, epoch)
        if epoch == 1:
            save_as_of_this_epoch(whole, file)
    expected, rows = everything(whole), whole.distillation_log.rows

    for steps_before_the_kill in (0, 3):
        continued = initialized(trainer_class, regions=regions, seed=1)
        continued.load_checkpoint(str(file))
        assert continued.current_epoch == 2
        start_epoch(continued, 2)
        for seed in range(steps_before_the_kill):
            continued.train_step(make_batch(continued, seed))

        continued = initialized(trainer_class, regions=regions, seed=2)
        continued.load_checkpoint(str(file))
        for epoch in range(continued.current_epoch, 4):
            run_epoch(continued, epoch)
        assert_equal(everything(continued), expected)
        table = continued.distillation_log.table()
        pd.testing.assert_frame_equal(table, pd.DataFrame(rows)[list(table)], rtol=1e-6, check_dtype=False)
        assert set(table) == set(pd.DataFrame(rows))
        assert "begun with other settings" not in log_of(continued)


def tensors_numbers_and_text(item) -> bool:
    if isinstance(item, dict):
        return all(tensors_numbers_and_text(x) for pair in item.items() for x in pair)
    if isinstance(item, (list, tuple)):
        return all(map(tensors_numbers_and_text, item))
    return item is None or type(item) in (torch.Tensor, str, int, float, bool)


def test_a_checkpoint_is_nnunets_own_plus_one_key_that_needs_no_code_of_ours(tmp_path):
    trainer = initialized(nnUNetTrainerDSKD_ACW)
    checkpoint = torch.load(saved(trainer, tmp_path / "checkpoint_latest.pth"), weights_only=False)
    stock = initialized(nnUNetTrainer)
    stock.network.load_state_dict(checkpoint["network_weights"], strict=True)
    stock.save_checkpoint(str(tmp_path / "stock.pth"))
    theirs = torch.load(tmp_path / "stock.pth", weights_only=False)
    assert set(checkpoint) == set(theirs) | {"distillation"}
    assert len(checkpoint["optimizer_state"]["param_groups"]) == len(theirs["optimizer_state"]["param_groups"])
    assert checkpoint["distillation"]["terms"] and tensors_numbers_and_text(checkpoint["distillation"])

    again = initialized(nnUNetTrainerDSKD_ACW, seed=1)
    again.load_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    assert_equal(everything(again), everything(trainer))
    own = [t.own_parameters.optimizer.state_dict()["state"] for t in (again, trainer)]
    assert own[0].keys() == own[1].keys() and any(state.get("momentum_buffer") is not None for state in own[1].values())
    assert all(torch.equal(own[0][i]["momentum_buffer"], own[1][i]["momentum_buffer"]) for i in own[0]
               if own[1][i].get("momentum_buffer") is not None)  # fmt: skip


@pytest.mark.parametrize("trainer_class", FAMILIES)
def test_stock_nnunet_continues_a_checkpoint_of_ours(trainer_class, tmp_path):
    trainer = initialized(trainer_class)
    file = saved(trainer, tmp_path / "checkpoint_latest.pth")
    stock = initialized(nnUNetTrainer, seed=1)
    stock.load_checkpoint(file)
    assert stock.current_epoch == 1
    assert_equal(dict(stock.network.state_dict()), dict(trainer.network.state_dict()))
    momenta = [state["momentum_buffer"] for state in stock.optimizer.state.values()]
    assert momenta and all(m.abs().max() > 0 for m in momenta)
    run_epoch(stock, 1)


@pytest.mark.parametrize("other", [nnUNetTrainer, nnUNetTrainerDSKD])
def test_a_checkpoint_without_the_extras_is_continued_and_said_so(other, tmp_path):
    source = initialized(other)
    file = saved(source, tmp_path / "other.pth")
    trainer = initialized(nnUNetTrainerDSKD_ACW, seed=1)
    trainer.load_checkpoint(file)
    assert trainer.current_epoch == 1
    head = trainer.network.decoder.seg_layers[-1]
    (teacher_head,) = (m for name, m in trainer.loss.terms.named_modules() if name.endswith("teacher_head"))
    assert torch.equal(head.weight, source.network.decoder.seg_layers[-1].weight)
    assert torch.equal(head.weight, teacher_head.weight) and torch.equal(head.bias, teacher_head.bias)
    assert all(state["momentum_buffer"].isfinite().all() for state in trainer.optimizer.state.values())
    log = log_of(trainer)
    assert f"was written by {other.__name__} and holds no parameters" in log and "start anew" in log
    run_epoch(trainer, 1)


def test_a_checkpoint_of_stock_nnunet_serves_dskd(tmp_path):
    stock = initialized(nnUNetTrainer)
    file = saved(stock, tmp_path / "stock.pth")
    trainer = initialized(nnUNetTrainerDSKD, seed=1)
    trainer.load_checkpoint(file)
    assert_equal(dict(trainer.network.state_dict()), dict(stock.network.state_dict()))
    run_epoch(trainer, 1)
    assert trainer.distillation_log.rows[0]["epoch"] == 1
    assert trainer.distillation_log.rows[0]["ddl"] > 0


@pytest.mark.parametrize("trainer_class", FAMILIES)
def test_a_checkpoint_of_stock_nnunet_serves_as_pretrained_weights(trainer_class, tmp_path):
    stock = initialized(nnUNetTrainer)
    stock.save_checkpoint(str(tmp_path / "stock.pth"))
    trainer = initialized(trainer_class, seed=1)
    load_pretrained_weights(trainer.network, str(tmp_path / "stock.pth"))
    ours, theirs = trainer.network.state_dict(), stock.network.state_dict()
    assert all(
        torch.equal(ours[name], theirs[name]) == (".seg_layers." not in name) for name in ours if "weight" in name
    )
    for epoch in range(2):
        run_epoch(trainer, epoch)
    segmentation = trainer.distillation_log.rows[1]["segmentation"]
    assert math.isfinite(segmentation) and segmentation != 0


@pytest.mark.parametrize("other", [nnUNetTrainerACWSKD_noAT, nnUNetTrainerDSKD])
def test_refuses_the_state_of_other_terms_and_changes_nothing(other, tmp_path):
    file = saved(initialized(nnUNetTrainerACWSKD), tmp_path / "checkpoint_latest.pth")
    trainer = initialized(other, seed=1)
    before = everything(trainer)
    with pytest.raises(ValueError, match="was written by nnUNetTrainerACWSKD .*-pretrained_weights"):
        trainer.load_checkpoint(file)
    assert_equal(everything(trainer), before)
    assert trainer.current_epoch == 0


def test_a_finished_training_is_validated_whatever_its_terms_were(tmp_path):
    finished, trainer = initialized(nnUNetTrainerACWSKD), initialized(nnUNetTrainerACWSKD_noAT, seed=1)
    finished.num_epochs = trainer.num_epochs = 1
    file = saved(finished, tmp_path / "checkpoint_final.pth")
    trainer.load_checkpoint(file)
    assert trainer.current_epoch == trainer.num_epochs
    assert_equal(trainer.network.state_dict(), finished.network.state_dict())


def test_a_trainer_whose_terms_changed_is_not_named_as_the_way_out(tmp_path, monkeypatch):
    file = saved(initialized(nnUNetTrainerACWSKD), tmp_path / "checkpoint_latest.pth")
    monkeypatch.setattr(nnUNetTrainerACWSKD, "terms", nnUNetTrainerACWSKD_noAT.terms)
    with pytest.raises(ValueError, match="nnUNetTrainerACWSKD or the dataset's labels changed since") as error:
        initialized(nnUNetTrainerACWSKD).load_checkpoint(file)
    assert "now is None" in str(error.value) and "Continue it with" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "half"], ids=["empty", "other", "half"])
def test_a_damaged_checkpoint_is_named_with_the_way_out(tmp_path, content):
    trainer = initialized(nnUNetTrainerDSKD)
    file = tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(file))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if content == "half" else content)
    with pytest.raises(ValueError, match=r"is not a complete checkpoint \(.+\). Start the training anew"):
        initialized(nnUNetTrainerDSKD).load_checkpoint(str(file))
    (tmp_path / "checkpoint_best.pth").touch()
    with pytest.raises(ValueError, match="Move it away, and --c continues from .*checkpoint_best.pth"):
        initialized(nnUNetTrainerDSKD).load_checkpoint(str(file))


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("No module named 'numpy._core'"), OSError(116, "Stale file handle")]
)
def test_a_checkpoint_that_this_environment_cannot_read_is_not_called_damaged(error, tmp_path, monkeypatch):
    file = saved(initialized(nnUNetTrainerDSKD), tmp_path / "checkpoint_latest.pth")

    def load(*_, **__):
        raise error

    trainer = initialized(nnUNetTrainerDSKD)
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(type(error), match="numpy._core|Stale file handle"):
        trainer.load_checkpoint(file)


def test_a_file_system_that_maps_nothing(tmp_path, monkeypatch):
    trainer, load = initialized(nnUNetTrainerDSKD), torch.load
    file = saved(trainer, tmp_path / "checkpoint_latest.pth")

    def load_unmapped(*arguments, mmap=None, **options):
        if mmap:
            raise RuntimeError("unable to mmap")
        return load(*arguments, **options)

    again = initialized(nnUNetTrainerDSKD, seed=1)
    monkeypatch.setattr(torch, "load", load_unmapped)
    again.load_checkpoint(file)
    assert_equal(everything(again), everything(trainer))


def test_a_damaged_best_checkpoint_is_not_its_own_way_out(tmp_path):
    (tmp_path / "checkpoint_best.pth").touch()
    with pytest.raises(ValueError, match="Start the training anew"):
        initialized(nnUNetTrainerDSKD).load_checkpoint(str(tmp_path / "checkpoint_best.pth"))


def test_a_checkpoint_of_torchs_older_format_is_continued(tmp_path):
    trainer = initialized(nnUNetTrainerDSKD)
    file = saved(trainer, tmp_path / "checkpoint_latest.pth")
    torch.save(torch.load(file, weights_only=False), file, _use_new_zipfile_serialization=False)
    again = initialized(nnUNetTrainerDSKD, seed=1)
    again.load_checkpoint(file)
    assert_equal(everything(again), everything(trainer))


@pytest.mark.parametrize("trainer_class", FAMILIES)
def test_a_checkpoint_is_written_once_and_read_without_a_second_copy_on_the_device(
    trainer_class, tmp_path, monkeypatch
):
    trainer = initialized(trainer_class)
    run_epoch(trainer, 0)
    save, load, written, read = torch.save, torch.load, [], []

    def counting_save(item, file, *args, **kwargs):
        save(item, file, *args, **kwargs)
        written.append(os.path.getsize(file))

    def counting_load(*args, **kwargs):
        read.append((kwargs.get("mmap"), kwargs.get("map_location")))
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "save", counting_save)
    monkeypatch.setattr(torch, "load", counting_load)
    file = tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(file))
    assert torch.save is counting_save
    assert read == [] and written == [file.stat().st_size]
    assert [x.name for x in tmp_path.glob("*.pth*")] == [file.name]

    initialized(trainer_class).load_checkpoint(str(file))
    full = [args for args in read if not args[0]]
    assert len(full) == 1 and full[0][1] == torch.device("cpu")  # nnU-Net's own, onto the trainer's device
    assert all(place == "cpu" for mapped, place in read if mapped)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_kill_or_a_full_disk_while_saving_leaves_the_previous_checkpoint_and_nothing_else(
    tmp_path, monkeypatch, error
):
    trainer = initialized(nnUNetTrainerACWSKD)
    file = tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(file))
    before = file.read_bytes()

    def dies_half_way(checkpoint, filename):
        with open(filename, "wb") as half:
            half.write(before[: len(before) // 2])
        raise error(28, "No space left on device")

    monkeypatch.setattr(torch, "save", dies_half_way)
    with pytest.raises(error):
        trainer.save_checkpoint(str(file))
    assert torch.save is dies_half_way
    assert file.read_bytes() == before
    assert [x.name for x in tmp_path.iterdir() if "checkpoint" in x.name] == [file.name]


def test_disabled_checkpointing_writes_nothing(tmp_path):
    trainer = initialized(nnUNetTrainerDSKD)
    trainer.disable_checkpointing = True
    trainer.save_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    assert list(tmp_path.glob("*.pth*")) == []


def test_load_checkpoint_keeps_nnunets_parameter_name(tmp_path):
    ours, theirs = (inspect.signature(t.load_checkpoint).parameters for t in (SelfDistillationTrainer, nnUNetTrainer))
    assert list(ours) == list(theirs)
    trainer = initialized(nnUNetTrainerDSKD)
    file = saved(trainer, tmp_path / "checkpoint.pth")
    initialized(nnUNetTrainerDSKD).load_checkpoint(filename_or_checkpoint=file)


def with_terms(*terms):
    return type("nnUNetTrainerDSKD_other", (nnUNetTrainerDSKD,), {"terms": terms})


@pytest.mark.parametrize(
    ("before", "after", "was", "now"),
    [
        ((DeepDistribution(),), (DeepDistribution(weight=0.5),), "weight=1,", "weight=0.5,"),
        ((Pixelwise(alpha=0.5),), (Pixelwise(alpha=0.8),), "alpha=0.5", "alpha=0.8"),
        ((AdversarialClassWise(),), (AdversarialClassWise(tau_range=8.0),), "tau_range=4.0", "tau_range=8.0"),
        ((AdversarialClassWise(),), (AdversarialClassWise(token=0.7),), "token=0.5", "token=0.7"),
        ((DeepDistribution(),), (DeepDistribution(), Pixelwise()), "It was: DeepDistribution", "; Pixelwise("),
    ],
)
def test_continuing_with_other_settings_is_said(before, after, was, now, tmp_path):
    file = saved(initialized(with_terms(*before)), tmp_path / "checkpoint.pth")
    trainer = initialized(with_terms(*after))
    trainer.load_checkpoint(file)
    said = log_of(trainer).split("was begun with other settings.")[1]
    old, new = said.split("It is now:")
    assert was in old and now in new and "It continues with the new ones" in new
    run_epoch(trainer, 1)
