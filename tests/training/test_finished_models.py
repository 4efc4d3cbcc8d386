"""Finished models as teachers: ensembles, other networks, what is refused, and which outputs were ever trained."""

import json
import math
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerNoDeepSupervision import (
    nnUNetTrainerNoDeepSupervision,
)
from torch import nn
from toy import make_batch, make_trainer, run_epoch, save_as_of_this_epoch, start_epoch
from toy_data import LABELLED
from toy_models import finish, nnUNetTrainerDistill_brief, student, taught

from nnunet_skd.finished_models import _halve, fit_together
from nnunet_skd.model_checks import VARIABLE, check_model

pytestmark = pytest.mark.usefixtures("nnunet_env")


def move(folder, name) -> Path:
    return folder.rename(folder.parent / f"{name}__{'__'.join(folder.name.split('__')[1:])}")


# --- teaching --------------------------------------------------------------------------------------------------------


def test_two_folds_are_drawn_alike_often_each_with_its_own_weights(monkeypatch):
    folder = finish(folds=(0, 3), stages=4)
    trainer = taught(folder, fold="all", stages=4, monkeypatch=monkeypatch)
    teacher = trainer.teacher
    teacher.mirror = False
    assert [member.name.split()[-1] for member in teacher._members] == ["0", "3"]
    data = make_batch(trainer)["data"]
    random.seed(0)
    draws = [tuple(teacher(data)[0].flatten()[:5].tolist()) for _ in range(40)]
    expected = []
    for fold in (0, 3):
        network = make_trainer(nnUNetTrainer, stages=4)
        network.initialize()
        checkpoint = torch.load(folder / f"fold_{fold}" / "checkpoint_final.pth", weights_only=False)
        network.network.load_state_dict(checkpoint["network_weights"])
        expected.append(tuple(network.network(data)[0].flatten()[:5].tolist()))
    assert set(draws) == set(expected) and 10 < draws.count(expected[0]) < 30


def test_members_are_frozen_in_evaluation_and_off_the_students_state(monkeypatch):
    trainer = taught(finish(stages=4), stages=4, monkeypatch=monkeypatch)
    (member,) = trainer.teacher._members
    assert not any(module.training for module in member.network.modules())
    assert not any(p.requires_grad for p in member.network.parameters())
    outputs = trainer.teacher(make_batch(trainer)["data"])
    assert not any(z.requires_grad for z in outputs if z is not None)
    stock = make_trainer(nnUNetTrainer, stages=4)
    stock.initialize()
    assert set(trainer.network.state_dict()) == set(stock.network.state_dict())
    assert trainer.teacher.state_dict() == {"folders": trainer.teacher.folders}


def test_is_mirrored_along_the_axes_of_its_own_trainer(monkeypatch):
    trainer = taught(finish(stages=4), stages=4, monkeypatch=monkeypatch)
    teacher, data = trainer.teacher, make_batch(trainer)["data"]
    assert teacher._members[0].mirror_axes == (0, 1)
    monkeypatch.setattr(random, "random", lambda: 0.0)  # along every axis
    mirrored = teacher(data)[0]
    expected = teacher._members[0].network(data.flip((2, 3)))[0].flip((2, 3))
    assert torch.equal(mirrored, expected)
    teacher._members[0].mirror_axes = ()
    assert torch.equal(teacher(data)[0], teacher._members[0].network(data)[0])


@pytest.mark.parametrize(("theirs", "ours"), [((), (0, 1)), ((1,), (0, 1)), ((0, 1), (0, 1)), ((), None)])
def test_warns_where_it_was_trained_without_the_students_mirroring(theirs, ours, monkeypatch):
    trainer = taught(finish(stages=4), stages=4, monkeypatch=monkeypatch)
    trainer.inference_allowed_mirroring_axes, said = ours, []
    trainer.print_to_log_file = lambda *words, **_: said.append(" ".join(map(str, words)))
    trainer.teacher._members[0].mirror_axes = theirs
    trainer.teacher.attach(trainer)
    warned = any("fold 0 never saw mirrored images, and this training mirrors" in line for line in said)
    assert warned == (set(ours or ()) > set(theirs))


@pytest.mark.parametrize(
    ("theirs", "ours", "has"),
    [
        ({"stages": 4}, {"stages": 4}, [True, True, False]),  # nnU-Net does not train the lowest
        ({"stages": 3}, {"stages": 5}, [True, False, False, False]),
        ({"stages": 5}, {"stages": 3}, [True, True]),
        ({"stages": 4, "residual": True}, {"stages": 4}, [True, True, False]),
        ({"stages": 4, "trainer_class": nnUNetTrainerNoDeepSupervision}, {"stages": 4}, [True, False, False]),
        ({"stages": 4, "dim": 3, "patch": 16}, {"stages": 4, "dim": 3, "patch": 16}, [True, True, False]),
        ({"stages": 4, "regions": True, "ignore": True}, {"stages": 4, "regions": True, "ignore": True},
         [True, True, False]),
    ],
    ids=["alike", "smaller", "larger", "residual", "no deep supervision", "3d", "regions"],
)  # fmt: skip
def test_outputs_are_matched_by_size_and_only_trained_ones_teach(theirs, ours, has, monkeypatch):
    folder = move(finish(**theirs), "teacher")
    trainer = taught(folder, monkeypatch=monkeypatch, **ours)
    outputs = trainer.teacher(make_batch(trainer)["data"])
    assert [z is not None for z in outputs] == has
    targets = make_batch(trainer)["target"]
    assert all(z is None or z.shape[2:] == t.shape[2:] for z, t in zip(outputs, targets, strict=True))
    trainer.on_train_epoch_start()
    assert -10 < trainer.train_step(make_batch(trainer))["loss"].item() < math.inf
    means = trainer.loss.means.pop()
    assert means["ddl"] > 0 and "psdl" in means and "cwd" not in means


def test_members_that_do_not_fit_take_turns(monkeypatch):
    trainer = taught(finish(stages=4), stages=4, monkeypatch=monkeypatch)
    data, teacher = make_batch(trainer)["data"], trainer.teacher
    teacher.mirror = False
    expected = teacher(data)[0]
    teacher._resident = False
    moves = []
    monkeypatch.setattr(teacher._members[0].network, "to", moves.append)
    assert torch.equal(teacher(data)[0], expected) and moves == [trainer.device, "cpu"]


def test_members_take_turns_where_they_would_fill_a_tenth_of_the_device(monkeypatch):
    networks = [torch.nn.Linear(9, 10).half() for _ in range(5)]  # 200 bytes each
    for total, fits in ((10000, True), (9999, False)):
        properties = SimpleNamespace(total_memory=total)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, properties=properties: properties)
        assert fit_together(networks, torch.device("cuda")) == fits
    assert fit_together(networks, torch.device("cpu"))


def test_weights_that_modules_share_count_once(monkeypatch):
    """In nnU-Net's networks the decoder holds the encoder, and each block its layers twice."""
    trainer = make_trainer(nnUNetTrainer, stages=4)
    trainer.initialize()
    size = sum(p.numel() * p.element_size() for p in trainer.network.parameters())
    for total, fits in ((10 * size + 10, True), (10 * size - 10, False)):
        properties = SimpleNamespace(total_memory=total)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, properties=properties: properties)
        assert fit_together([trainer.network], torch.device("cuda")) == fits


@pytest.mark.parametrize("fit", [True, False])
def test_members_move_to_the_device_or_wait_and_the_log_says_so(fit, monkeypatch):
    monkeypatch.setattr("nnunet_skd.finished_models.fit_together", lambda networks, device: fit)
    moves = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, device: moves.append(device) or module)
    trainer = student(finish(stages=4), stages=4, monkeypatch=monkeypatch)
    trainer.teacher.check(trainer)
    moves.clear()
    trainer.teacher.attach(trainer)
    assert moves == ([trainer.device] if fit else [])
    assert ("one at a time" in Path(trainer.log_file).read_text()) != fit


@pytest.mark.slow
def test_compiled_teachers_equal_eager_ones_and_folds_share_a_graph(aot_eager, monkeypatch):
    folder = finish(folds=(0, 3), stages=4)
    outputs, graphs = [], []
    for compiled in (False, True):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        trainer = taught(folder, fold="all", stages=4, compiled=compiled, monkeypatch=monkeypatch)
        random.seed(0)
        for seed in range(12):
            outputs.append([z for z in trainer.teacher(make_batch(trainer, seed)["data"]) if z is not None])
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    torch.testing.assert_close(outputs[:12], outputs[12:])
    assert graphs[11] == 0 and graphs[12] == graphs[-1] > 0  # neither a fold nor a flip compiles anew


def test_continues_without_the_variable_and_without_a_false_warning(monkeypatch, tmp_path):
    folder = finish(stages=4)
    trainer = student(folder, stages=4, monkeypatch=monkeypatch)
    run_epoch(trainer, 0)
    file = save_as_of_this_epoch(trainer, tmp_path / "checkpoint_latest.pth")
    checkpoint = torch.load(file, weights_only=False)
    assert checkpoint["distillation"]["teacher"] == {"folders": [str(folder.resolve())]}
    monkeypatch.delenv(VARIABLE)
    continued = student(stages=4, seed=1)
    continued.load_checkpoint(file)
    run_epoch(continued, 1)
    assert continued.teacher.folders == [str(folder.resolve())]
    log = Path(continued.log_file).read_text()
    assert "WARNING" not in log and f"Teachers: {folder.name} fold 0" in log

    other = move(finish(stages=4, seed=5), "other")
    finish(stages=4)
    continued = student(other, stages=4, monkeypatch=monkeypatch)
    continued.load_checkpoint(file)
    run_epoch(continued, 1)
    assert "begun with other teachers" in Path(continued.log_file).read_text()


def test_no_unlabelled_images_no_ignore_label_no_second_stream(monkeypatch):
    trainer = student(finish(stages=4), stages=4, monkeypatch=monkeypatch)
    trainer.on_train_start()
    assert trainer.stream is None


def test_a_teacher_without_ignore_label_teaches_the_ignored_voxels(monkeypatch):
    trainer = student(finish(stages=4), stages=4, ignore=True, monkeypatch=monkeypatch)
    trainer.on_train_start()
    said = f"Per step {trainer.batch_size} patches more, from the ignored voxels of {len(LABELLED) - 1} training cases"
    assert said in Path(trainer.log_file).read_text()
    start_epoch(trainer, trainer.num_epochs - 1)  # in the first ones the weight is still 0
    trainer.train_step(make_batch(trainer))
    assert trainer.loss.means.pop()["ignored"] > 0


# --- refusals --------------------------------------------------------------------------------------------------------


def refusal(match, *folders, monkeypatch, **kind):
    trainer = student(*folders, monkeypatch=monkeypatch, **kind)
    trainer.get_dataloaders = lambda: pytest.fail("data was read before the refusal")
    with pytest.raises(ValueError, match=match):
        trainer.on_train_start()


def change_plans_of(fold_folder, edit) -> None:
    """The plans with which a fold was trained."""
    file = fold_folder / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    edit(checkpoint["init_args"]["plans"])
    torch.save(checkpoint, file)


def test_refuses_to_begin_without_a_teacher(monkeypatch):
    refusal(r"nnUNet_skd_teacher=\$nnUNet_results/Dataset900_Toy/nnUNetTrainer__nnUNetPlans__2d",
            monkeypatch=monkeypatch)  # fmt: skip


def change(folder, file, change):
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))


def configuration(**values):
    return lambda plans: plans["configurations"]["2d"].update(values)


@pytest.mark.parametrize(
    ("file", "changes", "match"),
    [
        ("dataset.json", lambda d: d.update(labels={"background": 0, "a": 2, "b": 1}), "labels: "),
        ("dataset.json", lambda d: d.update(channel_names={"0": "MR"}), "channels: {'0': 'MR'} there"),
        ("plans.json", configuration(spacing=[1.0, 0.5]), r"spacing: \[1.0, 0.5\] there, \[1.0, 1.0\] here"),
        ("plans.json", configuration(normalization_schemes=["CTNormalization"]), "normalisation: "),
        ("plans.json", configuration(use_mask_for_norm=[True]), "use_mask_for_norm: "),
        ("plans.json", lambda p: p.update(dataset_name="Dataset901_Other"), "dataset: Dataset901_Other"),
        ("plans.json", lambda p: p.update(transpose_forward=[0, 2, 1]), "transpose_forward: "),
        ("plans.json", lambda p: p.update(configurations={}), "is not named TRAINER__PLANS__CONFIGURATION"),
        ("plans.json", lambda p: p["configurations"]["2d"]["architecture"]["arch_kwargs"].update(
            strides=[[1, 1], [2, 2], [3, 3]]), r"patch \[32, 32\] is not divisible by the teacher's strides \[6, 6\]"),
        ("plans.json", lambda p: p["configurations"]["2d"]["architecture"]["arch_kwargs"].update(
            strides=[[1, 1], [4, 4], [8, 8]]), r"of the student's patch \[32, 32\] its deepest layer sees 1 voxel"),
        ("plans.json", lambda p: p["configurations"]["2d"]["architecture"]["arch_kwargs"].update(
            features_per_stage=[8, 8, 8]), "cannot be loaded .*size mismatch.*plans.json was changed"),
        ("plans.json", lambda p: p["configurations"]["2d"]["architecture"]["arch_kwargs"].update(
            kernel_sizes=None), "cannot be loaded .*plans.json was changed"),
    ],
    ids=["labels", "channels", "spacing", "normalisation", "mask", "dataset", "axes", "name", "strides", "few voxels",
         "changed plans", "plans of no network"],
)  # fmt: skip
def test_refuses_a_model_that_differs(file, changes, match, monkeypatch):
    folder = finish()
    change(folder, file, changes)
    refusal(match, folder, monkeypatch=monkeypatch)


def test_refuses_a_model_of_other_ct_intensities(monkeypatch):
    folder, ct = finish(), configuration(normalization_schemes=["CTNormalization"])
    change(folder, "plans.json", ct)
    change_plans_of(folder / "fold_0", ct)
    trainer = student(folder, monkeypatch=monkeypatch)
    ct(trainer.plans_manager.plans)
    trainer.configuration_manager.configuration["normalization_schemes"] = ["CTNormalization"]
    trainer.teacher.check(trainer)
    change(folder, "plans.json", lambda p: p["foreground_intensity_properties_per_channel"]["0"].update(mean=9.0))
    with pytest.raises(ValueError, match="intensity statistics: "):
        trainer.teacher.check(trainer)


@pytest.mark.parametrize("key", ["labels", "regions_class_order"])
def test_refuses_regions_in_another_order(key, monkeypatch):
    """Their order is that of the network's channels."""
    folder = finish(regions=True, stages=4)
    turned = {"background": 0, "core": 2, "whole": [1, 2]} if key == "labels" else [2, 1]
    change(folder, "dataset.json", lambda d: d.update({key: turned}))
    refusal(f"{key}: ", folder, regions=True, stages=4, monkeypatch=monkeypatch)


def test_refuses_a_3d_model_for_a_2d_student(monkeypatch):
    folder = finish(dim=3, patch=16)
    refusal("dimensions: 3 there, 2 here", folder, monkeypatch=monkeypatch)


def test_refuses_a_fold_that_was_trained_with_other_plans(monkeypatch):
    """nnU-Net writes plans.json anew with each fold: fold 1 is of before the dataset was planned again."""
    folder = finish(folds=(0, 1))
    change_plans_of(folder / "fold_1", configuration(spacing=[3, 3]))
    with pytest.raises(ValueError, match=r"fold_1 was trained with .* in spacing: \[3.0, 3.0\] then, \[1.0, 1.0\]"):
        taught(folder, fold="all", monkeypatch=monkeypatch)
    taught(folder, monkeypatch=monkeypatch)


def test_refuses_what_is_no_model(tmp_path, monkeypatch):
    way_out = "must name a folder that nnUNetv2_train wrote"
    refusal(way_out, tmp_path / "nowhere", monkeypatch=monkeypatch)
    refusal(way_out, finish() / "fold_0", monkeypatch=monkeypatch)


WRONG = [None, [], {}, "text", 0, [None], {"a": None}]


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
def test_a_file_of_another_shape_is_refused_in_one_line_that_names_it_or_what_differs(name, monkeypatch):
    """Each key missing or of another type; what the comparison does not need may pass."""
    folder = finish()
    file, trainer = folder / name, student(folder, monkeypatch=monkeypatch)
    content = json.loads(file.read_text())
    changed = [b"", b"[" * 100000, b'"\xff"', *(json.dumps(value).encode() for value in WRONG if value != {})]
    for *above, last in places(content):
        for value in (..., *WRONG):
            copy = json.loads(json.dumps(content))
            at = copy
            for key in above:
                at = at[key]
            if value is ...:
                del at[last]
            else:
                at[last] = value
            changed.append(json.dumps(copy).encode())
    refused = 0
    for text in changed:
        file.write_bytes(text)
        try:
            check_model(folder, trainer)
        except ValueError as error:
            said = str(error)
            assert str(folder) in said and "\n" not in said and len(said) < 2000
            assert any(what in said for what in (name, "differ in", "strides")), said
            refused += 1
    assert refused > 50


def places(content, above=()):
    """Every key, and the first entry of each list."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content[:1]):
        yield (*above, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*above, key))


@pytest.mark.parametrize("content", [b"[]", b'{"enable_deep_supervision": null}', b"\xff"])
def test_a_damaged_debug_json_means_no_trained_side_outputs(content, monkeypatch):
    folder = finish(stages=4)
    (folder / "fold_0" / "debug.json").write_bytes(content)
    trainer = taught(folder, stages=4, monkeypatch=monkeypatch)
    assert [z is not None for z in trainer.teacher(make_batch(trainer)["data"])] == [True, False, False]
    assert "It teaches the highest resolution alone." in Path(trainer.log_file).read_text()


def test_a_link_of_another_name_teaches(monkeypatch, tmp_path):
    folder = finish(stages=4)
    archived = folder.rename(tmp_path / "archived")
    folder.symlink_to(archived)
    trainer = taught(folder, stages=4, monkeypatch=monkeypatch)
    assert trainer.teacher.folders == [str(folder)]


def test_a_link_to_the_students_own_folder_is_refused(monkeypatch, tmp_path):
    folder = finish(nnUNetTrainerDistill_brief, stages=4)
    link = tmp_path / folder.name
    link.symlink_to(folder)
    refusal("would be overwritten", link, stages=4, monkeypatch=monkeypatch)


def test_a_training_that_lacks_its_validation_alone_needs_no_teacher(monkeypatch, tmp_path):
    """It was killed there, and --c repeats the validation; the teacher may be gone by now."""
    folder = finish(stages=4)
    trainer = student(folder, stages=4, monkeypatch=monkeypatch)
    trainer.num_epochs = 1
    run_epoch(trainer, 0)
    file = save_as_of_this_epoch(trainer, tmp_path / "checkpoint_final.pth")
    monkeypatch.delenv(VARIABLE)
    folder.rename(tmp_path / "gone")
    continued = student(stages=4, seed=1)
    continued.num_epochs = 1
    continued.load_checkpoint(file)
    continued.on_train_start()
    continued.save_checkpoint(str(tmp_path / "again.pth"))
    again = torch.load(tmp_path / "again.pth", weights_only=False)
    assert again["distillation"]["teacher"] == {"folders": [str(folder)]}


@pytest.mark.parametrize("fold", [0, "all"])
@pytest.mark.parametrize("left", ["latest", "nothing"])
def test_refuses_an_unfinished_training(left, fold, monkeypatch):
    folder = finish()
    (final,) = folder.glob("fold_0/checkpoint_final.pth")
    final.rename(final.with_name("checkpoint_latest.pth"))
    if left == "nothing":
        shutil.rmtree(folder / "fold_0")
    refusal("holds no finished fold", folder, fold=fold, monkeypatch=monkeypatch)


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", None], ids=["empty", "garbage", "truncated"])
def test_refuses_a_damaged_checkpoint(content, monkeypatch):
    folder = finish()
    file = folder / "fold_0" / "checkpoint_final.pth"
    file.write_bytes(file.read_bytes()[:5000] if content is None else content)
    refusal(r"fold_0/checkpoint_final.pth cannot be loaded .*damaged", folder, monkeypatch=monkeypatch)


def test_a_file_system_that_fails_is_not_a_damaged_model(monkeypatch):
    folder = finish()

    def fail(*_):
        raise PermissionError(13, "Permission denied", "checkpoint_final.pth")

    monkeypatch.setattr(nnUNetPredictor, "initialize_from_trained_model_folder", fail)
    with pytest.raises(PermissionError):
        taught(folder, monkeypatch=monkeypatch)


def test_half_precision_leaves_the_running_variance_of_raw_ct_alone():
    """Hounsfield units have a variance that half precision does not hold."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval()
    network[1].running_var.fill_(1.3e6)
    image = torch.randn(2, 1, 8, 8) * 1000
    with torch.no_grad():
        expected = network(image)
        _halve(network)
        assert {p.dtype for p in network[0].parameters()} == {torch.float16}
        result = network(image.half())
    torch.testing.assert_close(result.float(), expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("folds", [(1,), ("all",), (1, 2, "all")])
def test_refuses_models_that_have_seen_the_validation_cases(folds, monkeypatch):
    match = f"only be taught by fold 0 of .*finished folds are {', '.join(map(str, folds))}. Train fold 0 .*fold all"
    refusal(match, finish(folds=folds), monkeypatch=monkeypatch)


def test_teaches_with_the_own_fold_among_others(monkeypatch):
    trainer = taught(finish(folds=(0, 1, "all")), monkeypatch=monkeypatch)
    assert [member.name.split()[-1] for member in trainer.teacher._members] == ["0"]
    trainer = taught(finish(folds=(0, 1, "all")), fold="all", monkeypatch=monkeypatch)
    assert [member.name.split()[-1] for member in trainer.teacher._members] == ["0", "1", "all"]


def test_what_macos_leaves_behind_is_no_validated_case(monkeypatch):
    folder = finish()
    (folder / "fold_0" / "validation" / f"._{LABELLED[0]}.nii.gz").touch()
    assert len(taught(folder, monkeypatch=monkeypatch).teacher._members) == 1


def test_refuses_a_model_of_another_split(monkeypatch):
    folder = finish()
    validation = folder / "fold_0" / "validation"
    (validation / f"{LABELLED[0]}.nii.gz").rename(validation / f"{LABELLED[1]}.nii.gz")
    refusal("validated on other cases than fold 0 has today", folder, monkeypatch=monkeypatch)
    (validation / f"{LABELLED[0]}.nii.gz").touch()  # as nnUNetv2_train --val adds it after the split was changed
    refusal("validated on other cases than fold 0 has today", folder, monkeypatch=monkeypatch)
    shutil.rmtree(validation)
    refusal("holds 0 of the 1 validation cases of fold 0.*--val", folder, monkeypatch=monkeypatch)


def test_a_fold_that_the_split_file_lacks_is_the_same_random_split_for_both(monkeypatch):
    folder = finish()
    (folder / "fold_0").rename(folder / "fold_7")
    trainer = student(folder, fold=7, monkeypatch=monkeypatch)
    held_out = trainer.do_split()[1]
    with pytest.raises(ValueError, match="validated on other cases"):
        trainer.teacher.check(trainer)
    for file in (folder / "fold_7" / "validation").iterdir():
        file.rename(file.with_name(f"{held_out[0]}.nii.gz"))
    trainer.teacher.check(trainer)


def test_refuses_a_model_that_the_training_would_overwrite(monkeypatch):
    folder = finish(nnUNetTrainerDistill_brief, stages=4)
    refusal(r"would be overwritten.*round1__nnUNetPlans__2d", folder, stages=4, monkeypatch=monkeypatch)
