"""The second stream: its gradients beside nnU-Net's, its patches, its processes, and what needs no second stream."""

import copy
import os
import random
import shutil
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)
from nnunetv2.training.nnUNetTrainer.variants.lr_schedule.nnUNetTrainer_warmup import nnUNetTrainer_warmup
from packaging.version import Version
from toy import assert_equal, everything, make_batch, make_trainer, run_epoch
from toy_data import LABELLED, UNLABELLED, with_data

from nnunet_skd.compat import nnunet_version
from nnunet_skd.loss import SelfDistillationLoss
from nnunet_skd.losses.unlabelled import Unlabelled, unlabelled_loss
from nnunet_skd.partly_labelled import IgnoredEverywhere
from nnunet_skd.second_stream import open_stream, processes_shared
from nnunet_skd.stream_cases import StreamCases, stream_cases
from nnunet_skd.teachers import PreviousEpoch
from nnunet_skd.tools.bench.measure import tensor_memory
from nnunet_skd.trainers.nnUNetTrainerDistill import nnUNetTrainerDistill
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD
from nnunet_skd.trainers.nnUNetTrainerDSKD_unlabelled import nnUNetTrainerDSKD_unlabelled

pytestmark = pytest.mark.usefixtures("nnunet_env")
NNUNET = Version(nnunet_version())


class nnUNetTrainerDSKD_unlabelled_now(nnUNetTrainerDSKD_unlabelled):
    terms = (Unlabelled(weight=0.5),)


class nnUNetTrainerDSKD_unlabelled_huge(nnUNetTrainerDSKD_unlabelled):
    terms = (Unlabelled(weight=1e4),)


class nnUNetTrainerDSKD_unlabelled_weight0(nnUNetTrainerDSKD_unlabelled):
    terms = (Unlabelled(weight=0.0),)


def started(trainer_class=nnUNetTrainerDSKD_unlabelled_now, *, data=(), **kind):
    """At the start of the first epoch, with nnU-Net's real loaders."""
    data = dict(data)
    random.seed(0)
    np.random.seed(0)
    trainer = with_data(make_trainer(trainer_class, **{"patch": 16} | kind), **{"size": 20} | data)
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    return trainer


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("huge", [False, True])
@pytest.mark.parametrize("scaled", [False, True])  # as on CUDA, where both passes are scaled
def test_a_steps_gradient_is_nnunets_and_the_terms_clipped_as_one(dim, regions, huge, scaled, monkeypatch):
    trainer_class = nnUNetTrainerDSKD_unlabelled_huge if huge else nnUNetTrainerDSKD_unlabelled_now
    trainer = started(trainer_class, dim=dim, regions=regions)
    if scaled:
        trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    trainer.teacher.mirror = False
    network, average = copy.deepcopy(trainer.network), copy.deepcopy(trainer.teacher._copy.module)
    given, taken, gradients = [], [], []
    view = trainer.stream._view
    trainer.stream._view = lambda *parts: given.append(parts) or taken.append(view(*parts)) or taken[-1]
    monkeypatch.setattr(
        trainer.optimizer, "step", lambda *_: gradients.extend(p.grad for p in trainer.network.parameters())
    )
    batch = make_batch(trainer)
    trainer.train_step(batch)

    ((data, teacher, target),) = taken
    assert target is None
    torch.testing.assert_close(given[0][1][0], average(given[0][0])[0])  # the teacher saw the student's patch
    loss = trainer.loss.segmentation_loss(network(batch["data"]), batch["target"])
    weight = trainer.loss.terms[0].weight
    teacher = [z.sigmoid() if regions else z.softmax(1) for z in teacher]
    known = teacher[0].amax((0, *range(2, dim + 2))) > (0.5 if regions else 1 / 3)
    for head, (z, q) in enumerate(zip(network(data), teacher, strict=True)):
        if trainer.loss.task.head_weights[head] > 0:
            value = unlabelled_loss(z, q, None, known, has_regions=regions)
            loss = loss + weight * trainer.loss.task.head_weights[head] * value
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
    assert (norm > 12) == huge
    for (name, p), got in zip(network.named_parameters(), gradients, strict=True):
        if p.grad is None:
            assert got is None, name
        else:
            torch.testing.assert_close(got, p.grad, rtol=1e-3, atol=1e-5 * (100 if huge else 1), msg=name)


def test_the_stronger_view_knows_spacing_and_masks_of_the_plans():
    trainer = with_data(make_trainer(nnUNetTrainerDSKD_unlabelled_now, dim=3, patch=16), size=20)
    trainer.initialize()
    trainer.configuration_manager.configuration |= {"spacing": [3.0, 1.0, 1.0], "use_mask_for_norm": [True]}
    view = open_stream(trainer, StreamCases([*UNLABELLED], []), 0)._view
    assert (tuple(view.spacing), tuple(view.masked)) == ((3, 1, 1), (True,))


def test_weight_0_is_nnunet_to_the_last_bit():
    results = []
    for trainer_class in (nnUNetTrainer, nnUNetTrainerDSKD_unlabelled_weight0, nnUNetTrainerDSKD_unlabelled):
        trainer = started(trainer_class)  # the third waits for a quarter of its epochs
        trainer.current_epoch = 0
        for seed in range(10):
            trainer.train_step(make_batch(trainer, seed))
        results.append({name: value.clone() for name, value in trainer.network.state_dict().items()})
    assert_equal(results[0], results[1])
    assert_equal(results[0], results[2])


def test_zero_grad_works_as_usual_afterwards_and_after_an_error():
    trainer = started()
    trainer.train_step(make_batch(trainer))
    assert any(p.grad is not None for p in trainer.network.parameters())
    batch = make_batch(trainer)
    batch["target"] = batch["target"][:1]  # nnU-Net's deep supervision does not accept that
    batch["data"] = batch["data"][:, :0]
    with pytest.raises(RuntimeError):
        trainer.train_step(batch)
    assert "zero_grad" not in vars(trainer.optimizer)
    trainer.optimizer.zero_grad(set_to_none=True)
    assert all(p.grad is None for p in trainer.network.parameters())


def test_what_a_failed_step_left_does_not_reach_the_next():
    before = started()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    before.train_step(make_batch(before))
    expected = everything(before)
    trainer = started()
    for p in trainer.network.parameters():
        p.grad = torch.full_like(p, 1e3)
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    trainer.train_step(make_batch(trainer))
    assert_equal(everything(trainer), expected)


@pytest.mark.slow
def test_the_peak_of_memory_is_that_of_a_step_with_the_previous_epoch_as_teacher():
    peaks = {}
    for trainer_class in (nnUNetTrainerDSKD, nnUNetTrainerDSKD_unlabelled_now):

        def build(trainer_class=trainer_class):
            trainer = started(trainer_class, patch=128, stages=4, data={"size": 140})
            if trainer_class is nnUNetTrainerDSKD:
                trainer.loss.start_epoch(1, 1000)
                trainer.teacher.start_epoch(1)
            trainer.train_step(make_batch(trainer))
            return trainer, make_batch(trainer)

        _, memory = tensor_memory(build, lambda built: built[0].train_step(built[1]), torch.device("cpu"))
        peaks[trainer_class] = memory.peak
    assert peaks[nnUNetTrainerDSKD_unlabelled_now] <= 1.15 * peaks[nnUNetTrainerDSKD]


# --- patches ---------------------------------------------------------------------------------------------------------


def shown(trainer, steps):
    """What the teacher saw of the stream: data, targets; beside the keys of the cases."""
    batches = []
    for _ in range(steps):
        batch = next(trainer.stream._batches)
        batches.append((batch["data"], batch["target"], list(batch["keys"])))
    return batches


def test_cases_and_positions_are_drawn_uniformly(monkeypatch):
    monkeypatch.setattr("nnunet_skd.stronger_view._change_intensity", lambda x, masked: x)
    trainer = started(nnUNetTrainerDSKD_unlabelled_now, data={"size": 24})
    np.random.seed(0)
    keys = [key for *_, batch in shown(trainer, 150) for key in batch]
    counts = [keys.count(case) for case in UNLABELLED]
    assert set(keys) == set(UNLABELLED) and min(counts) > 70
    loader = trainer.stream._batches.data_loader
    rows = [loader.get_bbox((1, 24, 24), False, {})[0][1] for _ in range(2000)]
    frequencies = np.unique(rows, return_counts=True)[1]
    # nnU-Net 2.6 keeps the patch before augmentation inside the image, not the one after it: fewer positions
    assert len(frequencies) >= (9 if NNUNET >= Version("2.7") else 5) and frequencies.min() > 0.5 * frequencies.mean()


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_ignored_voxels_of_training_cases_join_and_those_of_validation_do_not(dim, regions):
    trainer = started(dim=dim, regions=regions, ignore=True)
    np.random.seed(0)
    keys = set()
    for _, target, batch in shown(trainer, 30):
        ignored = target[0][:, -1] if regions else target[0][:, 0] == 3
        for key, patch in zip(batch, ignored, strict=True):
            keys.add(key)
            if key in UNLABELLED:
                assert patch.float().mean() > 0.4  # all but what augmentation pads with
    assert keys == {*UNLABELLED, *LABELLED[1:]}  # fold 0 holds out the first
    trainer.train_step(make_batch(trainer))
    means = trainer.loss.means.pop()
    assert means["unlabelled"] > 0 and means["ignored"] > 0


def test_with_an_ignore_label_unlabelled_images_are_not_needed():
    trainer = started(ignore=True, data={"unlabelled": ()})
    assert {key for *_, batch in shown(trainer, 20) for key in batch} == set(LABELLED[1:])


def test_beside_an_ignore_label_the_mask_of_normalisation_stays():
    segmentation = np.array([[0, -1], [-1, 0]], np.int8)
    ignored = IgnoredEverywhere(segmentation, 3)
    assert ignored.shape == (2, 2)
    assert ignored[:, 0:1].tolist() == [[3], [-1]] and ignored[(slice(None),)].tolist() == [[3, -1], [-1, 3]]


@pytest.mark.parametrize("per_labelled", [0.5, 1.0, 2.0])
def test_as_many_patches_as_asked_for(per_labelled):
    class nnUNetTrainerDSKD_unlabelled_many(nnUNetTrainerDSKD_unlabelled_now):
        unlabelled_per_labelled = per_labelled

    trainer = started(nnUNetTrainerDSKD_unlabelled_many, batch_size=4)
    assert len(shown(trainer, 1)[0][0]) == 4 * per_labelled


@pytest.mark.parametrize(
    "variant", [nnUNetTrainerNoMirroring, nnUNetTrainerDA5, nnUNetTrainerNoDA, nnUNetTrainer_warmup]
)
@pytest.mark.parametrize("dim", [2, 3])
def test_works_with_nnunets_variants(variant, dim):
    if variant is nnUNetTrainerDA5 and NNUNET < Version("2.7"):
        pytest.skip("nnU-Net 2.6's own DA5 does not fit its loader: KeyError 'target'")
    combined = type("nnUNetTrainerCombined", (nnUNetTrainerDSKD_unlabelled_now, variant), {})
    trainer = started(combined, dim=dim)
    trainer.train_step(make_batch(trainer))
    assert trainer.loss.means.pop()["unlabelled"] > 0
    mirrors = variant in (nnUNetTrainerDA5, nnUNetTrainer_warmup)
    axes = tuple(range(dim)) if mirrors else ()
    assert trainer.stream._view.mirror_axes == axes == trainer.teacher.mirror_axes


# --- loaders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "ours", "nnunets"), [("0", 0, "0"), ("1", 1, "1"), ("2", 1, "1"), ("3", 1, "2"), ("12", 6, "6")]
)
def test_shares_the_processes_with_nnunets_loaders(allowed, ours, nnunets, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setenv("nnUNet_n_proc_DA", allowed)
    with processes_shared(True) as share:
        assert (share, os.environ["nnUNet_n_proc_DA"]) == (ours, nnunets)
    assert os.environ["nnUNet_n_proc_DA"] == allowed
    with processes_shared(False):
        assert os.environ["nnUNet_n_proc_DA"] == allowed
    monkeypatch.delenv("nnUNet_n_proc_DA")
    with pytest.raises(KeyError), processes_shared(True):
        raise KeyError
    assert "nnUNet_n_proc_DA" not in os.environ


@pytest.mark.slow
def test_processes_start_at_the_beginning_and_end_with_the_training(monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    trainer = started(nnUNetTrainerDSKD_unlabelled)  # which waits for a quarter of its epochs
    stream = trainer.stream._batches
    assert isinstance(stream, NonDetMultiThreadedAugmenter)
    processes = list(stream._processes)
    assert len(processes) == 1 and processes[0].is_alive()
    trainer.on_train_end()
    assert not processes[0].is_alive()


def test_what_cannot_be_read_is_found_before_the_first_epoch():
    trainer = with_data(make_trainer(nnUNetTrainerDSKD_unlabelled, patch=16), size=20)
    for file in Path(trainer.preprocessed_dataset_folder_base, "unlabelled").rglob("*.pkl"):
        file.write_bytes(b"damaged")
    os.environ["nnUNet_n_proc_DA"] = "1"  # of the fixture, which restores it
    # nnU-Net 2.6 reads a case while it makes the loader, later versions in a background worker
    with pytest.raises((RuntimeError, UnpicklingError), match="background workers|could not find MARK"):
        trainer.on_train_start()


def test_what_a_later_epoch_needs_is_tried_before_the_first(monkeypatch):
    def out_of_memory(*_):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(SelfDistillationLoss, "unlabelled", out_of_memory)
    trainer = with_data(make_trainer(nnUNetTrainerDSKD_unlabelled, patch=16), size=20)  # it waits for its weight
    with pytest.raises(torch.cuda.OutOfMemoryError):
        trainer.on_train_start()


@pytest.mark.parametrize(
    "kind", [{}, {"regions": True}, {"ignore": True}, {"regions": True, "ignore": True}, {"dim": 3}]
)
def test_a_labelled_batch_is_tried_on_top_of_the_streams_gradients(kind, monkeypatch):
    """That is where a step needs the most memory: with gradients of the stream, and the optimizer's momentum."""
    trainer = with_data(make_trainer(nnUNetTrainerDSKD_unlabelled, patch=16, **kind), size=20)
    seen = []
    forward = SelfDistillationLoss.forward

    def labelled(loss, outputs, target):
        batch = make_batch(trainer)["target"]
        parameters = dict(trainer.network.named_parameters())
        held = all(p.grad is not None for n, p in parameters.items() if "seg_layers.0" not in n)
        held &= made == [p.shape for p in parameters.values()]
        seen.append(([t.shape for t in target] == [t.shape for t in batch], held, forward(loss, outputs, target)))
        return seen[-1][-1]

    made, empty_like = [], torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda p: made.append(p.shape) or empty_like(p))
    monkeypatch.setattr(SelfDistillationLoss, "forward", labelled)
    trainer.on_train_start()
    ((same_shapes, held, value),) = seen
    assert same_shapes and held and value.isfinite()
    assert all(p.grad is None for p in trainer.network.parameters()) and not trainer.optimizer.state


def test_a_teacher_that_begins_with_an_epoch_is_tried_too(monkeypatch):
    class nnUNetTrainerDSKD_unlabelled_previous(nnUNetTrainerDSKD_unlabelled_now):
        teacher = PreviousEpoch()

    taught = []
    values = SelfDistillationLoss.unlabelled
    monkeypatch.setattr(SelfDistillationLoss, "unlabelled", lambda *args: taught.append(args) or values(*args))
    with_data(trainer := make_trainer(nnUNetTrainerDSKD_unlabelled_previous, patch=16), size=20).on_train_start()
    assert len(taught) == 1
    trainer.on_train_epoch_start()
    assert trainer.teacher(make_batch(trainer)["data"]) is None


def test_of_what_was_tried_nothing_stays():
    trainer = started(nnUNetTrainerDSKD_unlabelled)
    norm = trainer.network.encoder.stages[0][0].convs[0].norm
    trainer.network.encoder.stages[0][0].convs[0].norm = torch.nn.BatchNorm2d(norm.num_features)
    taught = []
    backward = trainer.stream.backward
    trainer.stream.backward = lambda: backward() or taught.append(trainer.network.encoder.stages[0][0].convs[0].norm)
    term = trainer.loss.terms[0]
    term.highest.fill_(0.25)
    term.register_buffer("bank", torch.zeros(1))
    term.start_epoch = lambda *_: term.register_buffer("bank", torch.ones(3))  # of another size
    before = copy.deepcopy((trainer.network.state_dict(), trainer.loss.state_dict()))
    trainer.stream.rehearse()
    assert len(taught) == 1
    for old, new in zip(before, (trainer.network.state_dict(), trainer.loss.state_dict()), strict=True):
        assert_equal(old, new)
    assert all(p.grad is None for p in trainer.network.parameters()) and trainer.loss.means.pop() == {}


# --- with or without a second stream ---------------------------------------------------------------------------------


def test_without_images_the_refusal_names_the_command():
    trainer = with_data(make_trainer(nnUNetTrainerDSKD_unlabelled), unlabelled=())
    trainer.get_dataloaders = lambda: pytest.fail("data was read before the refusal")
    (Path(trainer.preprocessed_dataset_folder_base) / "dataset.json").write_text("{}")
    with pytest.raises(ValueError, match="nnunet-skd unlabelled -d 900 -c 2d -i FOLDER"):
        trainer.on_train_start()


def without_ignored_voxels(trainer, *cases):
    """These labelled cases as if somebody had annotated them throughout."""
    folder = Path(trainer.preprocessed_dataset_folder)
    for case in cases:
        data, segmentation, _, properties = trainer.dataset_class(str(folder)).load_case(case)
        data, segmentation = np.asarray(data[:]), np.asarray(segmentation[:])
        for file in (folder / f"{case}.b2nd", folder / f"{case}_seg.b2nd"):
            file.unlink()
        segmentation[segmentation == trainer.label_manager.ignore_label] = 0
        trainer.dataset_class.save_case(
            data, segmentation, properties, str(folder / case), data.shape, segmentation.shape
        )


def test_an_ignore_label_that_no_training_case_holds_is_no_reason_to_train():
    trainer = with_data(make_trainer(nnUNetTrainerDSKD_unlabelled, ignore=True, patch=16), size=20, unlabelled=())
    trainer.initialize()
    assert stream_cases(trainer) == ([], [*LABELLED[1:]])  # 0 is fold 0's own
    without_ignored_voxels(trainer, *LABELLED[1:3])
    assert stream_cases(trainer).partly == [*LABELLED[3:]]
    stream = open_stream(trainer, stream_cases(trainer), 0)
    assert stream._batches.data_loader._data.identifiers == [*LABELLED[3:]]
    without_ignored_voxels(trainer, *LABELLED[3:])
    (Path(trainer.preprocessed_dataset_folder_base) / "dataset.json").write_text("{}")
    with pytest.raises(ValueError, match="nnunet-skd unlabelled -d 900 -c 2d -i FOLDER"):
        stream_cases(trainer)
    distill = make_trainer(nnUNetTrainerDistill, ignore=True, patch=16)
    distill.initialize()
    assert stream_cases(distill) is None
    with_data(distill, size=20)  # and images beside it
    cases = stream_cases(distill)
    assert cases == ([*UNLABELLED], [])
    stream = open_stream(distill, cases, 0)
    assert not stream._partly and stream._batches.data_loader._data.identifiers == [*UNLABELLED]


@pytest.mark.parametrize("change", ["plans", "vanished"])
def test_images_of_older_plans_or_vanished_ones_are_refused(change):
    trainer = with_data(make_trainer(nnUNetTrainerDSKD_unlabelled))
    if change == "plans":
        trainer.configuration_manager.configuration["spacing"] = [2.0, 2.0]
    else:
        next(Path(trainer.preprocessed_dataset_folder_base, "unlabelled").rglob("*.pkl")).unlink()
    with pytest.raises(ValueError, match="nnunet-skd unlabelled -d 900 -c 2d -i /images"):
        trainer.on_train_start()


@pytest.mark.parametrize("removed", [True, False])
def test_a_training_that_was_begun_with_images_does_not_go_on_without_them(removed, tmp_path):
    """Where the dataset has an ignore label, it could; and images may be added."""
    begun = with_data(make_trainer(nnUNetTrainerDSKD_unlabelled, ignore=True, patch=16), size=20)
    begun.on_train_start()
    begun.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    folder = Path(begun.preprocessed_dataset_folder_base, "unlabelled")
    if removed:
        shutil.rmtree(folder)
    trainer = make_trainer(nnUNetTrainerDSKD_unlabelled, ignore=True, patch=16)
    trainer.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    if removed:
        with pytest.raises(ValueError, match=f"{folder}/.* is not there, .* or was begun with it. Run: nnunet-skd unl"):
            trainer.on_train_start()
    else:
        trainer.on_train_start()
        assert trainer.unlabelled == begun.unlabelled != []
        assert "other images without labels" not in Path(trainer.log_file).read_text()
        trainer.unlabelled, trainer.current_epoch = ["plain_0", "plain_1", "plain_9"], 0
        assert stream_cases(trainer).unlabelled == begun.unlabelled
        assert "other images without labels" not in Path(trainer.log_file).read_text()  # before the first epoch
        trainer.current_epoch = 1
        stream_cases(trainer)
        log = Path(trainer.log_file).read_text()
        assert "begun with other images without labels" in log
        assert "Added since: plain_2\nGone since: plain_9\n" in log


@pytest.mark.parametrize(
    ("trainer_class", "ignore", "refused"),
    [(nnUNetTrainerDSKD_unlabelled, False, True), (nnUNetTrainerDSKD_unlabelled, True, False),
     (nnUNetTrainerDistill, False, False), (nnUNetTrainerDistill, True, False)],
)  # fmt: skip
def test_the_second_stage_of_a_cascade_has_no_second_stream(trainer_class, ignore, refused):
    trainer = with_data(make_trainer(trainer_class, dim=3, cascade=True, ignore=ignore, patch=16, stages=4), size=20)
    if refused:
        with pytest.raises(ValueError, match="3d_cascade_fullres is the second stage of a cascade"):
            stream_cases(trainer)
    else:
        assert stream_cases(trainer) is None


def test_a_stock_trainer_of_ours_has_no_second_stream():
    assert stream_cases(with_data(make_trainer(nnUNetTrainerDSKD))) is None


def test_a_training_of_images_without_labels_is_no_reason_for_a_warning():
    trainer = with_data(make_trainer(nnUNetTrainerDSKD_unlabelled_huge, patch=16), size=20)
    trainer.on_train_start()
    run_epoch(trainer, 0)
    (row,) = trainer.distillation_log.rows
    assert row["share_unlabelled"] > row["share_segmentation"]
    assert "larger than the segmentation loss" not in Path(trainer.log_file).read_text()


def test_a_whole_epoch_logs_what_was_taught():
    trainer = with_data(make_trainer(nnUNetTrainerDSKD_unlabelled_now, patch=16), size=20)
    trainer.on_train_start()
    run_epoch(trainer, 0)
    (row,) = trainer.distillation_log.rows
    assert row["unlabelled"] > 0 and row["unlabelled_weight"] == 0.5 and 0 <= row["agreement"] <= 1
    assert row["accepted"] == 1 and {"teacher_share_1", "teacher_share_2", "share_unlabelled"} <= set(row)
