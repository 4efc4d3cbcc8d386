"""The record of a training: right, complete, and never worth a training."""

import math
import warnings as python_warnings

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from toy import FAMILIES, initialized, run_epoch

from nnunet_skd.epoch_log import DistillationLog, EpochMeans, plot_is_due, shares
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD

ROW = {"segmentation": 0.5, "ddl": 0.25, "share_segmentation": 2 / 3, "share_ddl": 1 / 3, "alpha": 0.1}


def test_means_of_steps():
    means = EpochMeans()
    means.add({"a": torch.tensor(1.0), "b": 2.0})
    means.add({"a": torch.tensor(3.0)})
    means.add({"c": torch.tensor(math.nan), "d": math.nan}, skip_undefined=True)
    means.add({"c": torch.tensor(5.0)}, skip_undefined=True)
    assert means.pop() == {"a": 2, "b": 2, "c": 5, "d": pytest.approx(math.nan, nan_ok=True)}
    assert means.pop() == {}


def test_a_vector_is_named_value_by_value():
    means = EpochMeans()
    means.add({("first", "second"): torch.tensor([1.0, math.nan])}, skip_undefined=True)
    means.add({("first", "second"): torch.tensor([2.0, 5.0])}, skip_undefined=True)
    assert means.pop() == {"first": 1.5, "second": 5}


@pytest.mark.parametrize("values", [{"a": torch.ones(2)}, {("a", "b"): torch.ones(3)}])
def test_a_vector_without_a_name_for_each_value_is_refused(values):
    with pytest.raises(ValueError, match="name a vector by a tuple of names"):
        EpochMeans().add(values)


def test_long_trainings_are_plotted_less_often():
    due = [epoch for epoch in range(1, 34) if plot_is_due(epoch, 33)]
    assert due == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 33]


def test_shares_count_from_the_lowest_value():
    assert shares({"segmentation": -0.5, "ddl": 0.5}, {"segmentation": -1.0}) == {
        "share_segmentation": 0.5,
        "share_ddl": 0.5,
    }
    assert shares({"segmentation": 0.5, "ddl": -0.5}, {}) == {"share_segmentation": 0.5, "share_ddl": 0.5}
    assert shares({"segmentation": 0.0}, {}) == {"share_segmentation": 0.0}


def new_log(folder, first_epoch=0):
    warnings = []
    return DistillationLog(folder, first_epoch, warnings.append), warnings


def test_a_continued_training_drops_the_epochs_that_it_repeats(tmp_path):
    log, _ = new_log(tmp_path)
    for epoch in range(4):
        log.append({"epoch": epoch, **ROW})
    again, warnings = new_log(tmp_path, 2)
    assert [row["epoch"] for row in again.rows] == [0, 1] and warnings == []
    again.append({"epoch": 2, **ROW, "new": 1.0})
    table = pd.read_csv(tmp_path / "distillation.csv")
    assert table["epoch"].tolist() == [0, 1, 2] and math.isnan(table["new"][0])


def test_a_new_training_moves_the_old_record_aside(tmp_path):
    new_log(tmp_path)[0].append({"epoch": 0, **ROW})
    content = (tmp_path / "distillation.csv").read_text()
    log, warnings = new_log(tmp_path)
    assert not log.rows and not log.csv.exists() and warnings == []
    (aside,) = tmp_path.glob("distillation_*.csv")
    assert aside.read_text() == content


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"a,b\n1,2\n", b"\x89PNG\r\n\x1a\n\x00\xff\xfe\x80", b"epoch,ddl\nfirst,1\n",
     b"epoch,ddl\n0,1\n1,3.9?\n"],
    ids=["empty", "blank", "other columns", "binary", "text for numbers", "text for a value"],
)  # fmt: skip
def test_a_damaged_record_is_set_aside_when_a_training_continues(tmp_path, content):
    (tmp_path / "distillation.csv").write_bytes(content)
    log, warnings = new_log(tmp_path, 3)
    assert log.rows == [] and len(warnings) == 1 and "moved aside" in warnings[0]
    (aside,) = tmp_path.glob("distillation_*.csv")
    assert aside.read_bytes() == content
    log.append({"epoch": 3, **ROW})
    log.plot()
    assert pd.read_csv(log.csv)["epoch"].tolist() == [3] and log.png.is_file() and len(warnings) == 1


def fails(*args, **kwargs):
    raise OSError(28, "No space left on device")


def folder_for_csv(folder, monkeypatch):
    (folder / "distillation.csv").mkdir()


def folder_for_png(folder, monkeypatch):
    (folder / "distillation.png").mkdir()


def full_disk_for_plot(folder, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", fails)


def full_disk_for_csv(folder, monkeypatch):
    monkeypatch.setattr(pd.DataFrame, "to_csv", fails)


def broken_plot(folder, monkeypatch):
    def breaks(*args, **kwargs):
        raise ValueError("a plot of nothing")

    monkeypatch.setattr(Figure, "subplots", breaks)


FAULTS = [folder_for_csv, folder_for_png, full_disk_for_plot, full_disk_for_csv, broken_plot]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_record_that_cannot_be_written_is_reported_once(tmp_path, monkeypatch, fault):
    log, warnings = new_log(tmp_path)
    fault(tmp_path, monkeypatch)
    for epoch in range(3):
        log.append({"epoch": epoch, **ROW})
        log.plot()
    assert len(warnings) == 1 and "The training goes on" in warnings[0]
    assert len(log.rows) == 3
    assert list(tmp_path.glob("*.tmp*")) == [] or fault in (folder_for_csv, folder_for_png)


@pytest.mark.parametrize(
    ("trainer_class", "fault"),
    [(nnUNetTrainerDSKD, fault) for fault in FAULTS] + [(family, folder_for_csv) for family in FAMILIES[1:]],
)
def test_a_record_that_cannot_be_written_costs_neither_checkpoint_nor_training(
    nnunet_env, monkeypatch, trainer_class, fault, tmp_path
):
    trainer = initialized(trainer_class, patch=16)
    folder = tmp_path / "nnUNet_results"
    run_epoch(trainer, 0, steps=1, plot=True)
    (trainer.distillation_log.csv).unlink(), trainer.distillation_log.png.unlink()
    fault(trainer.distillation_log.csv.parent, monkeypatch)
    for epoch in (1, 2):
        run_epoch(trainer, epoch, steps=1, plot=True)
    (best,) = folder.rglob("checkpoint_best.pth")
    assert torch.load(best, weights_only=False)["current_epoch"] >= 1
    assert trainer.current_epoch == 3
    log = open(trainer.log_file).read()
    assert log.count("The training goes on; it does not need them.") == 1


def test_the_checkpoint_is_written_before_the_plot(nnunet_env, monkeypatch):
    """A kill while matplotlib draws must not cost the epoch."""
    trainer = initialized(nnUNetTrainerDSKD, patch=16)
    order = []
    save = trainer.save_checkpoint
    monkeypatch.setattr(trainer, "save_checkpoint", lambda file: order.append("checkpoint") or save(file))
    monkeypatch.setattr(DistillationLog, "plot", lambda log: order.append("plot"))
    run_epoch(trainer, 0, steps=1, plot=True)
    assert order == ["checkpoint", "plot"]


def test_one_epoch_and_columns_that_come_later_can_be_drawn(tmp_path):
    log, warnings = new_log(tmp_path)
    log.append({"epoch": 0, "segmentation": 0.5, "share_segmentation": 1.0})
    log.plot()
    log.append({"epoch": 1, **ROW, "tau": 3.9, "inter_class_similarity": math.nan})
    log.plot()
    assert warnings == [] and log.png.read_bytes().startswith(b"\x89PNG")


def test_the_names_of_a_hundred_classes_leave_the_axes_their_room(tmp_path):
    log, warnings = new_log(tmp_path)
    log.append({"epoch": 0, **ROW} | {f"teacher_share_{k}": 0.01 for k in range(105)})
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("error")  # matplotlib's: the layout did not work
        log.plot()
    assert warnings == [] and log.png.is_file()
