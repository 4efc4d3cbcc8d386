"""`nnunet-skd unlabelled` on tiny images, with nnU-Net's own preprocessor, dataset class and data loader."""

import errno
import gzip
import json
import os
import shutil
import subprocess
import time

import nibabel
import numpy as np
import pytest
import tifffile
from commands import BIN, HAS_PROC, workers_after_kill_9
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from PIL import Image
from toy import DATASET
from toy_dataset import RNG, Toy, image, save, save_case

from nnunet_skd.tools import cli, lock
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.lock import LOCK
from nnunet_skd.tools.parallel import for_each_case
from nnunet_skd.tools.unlabelled import checks
from nnunet_skd.tools.unlabelled import preprocess as preprocess_module
from nnunet_skd.tools.unlabelled.dataset import preprocess_command
from nnunet_skd.tools.unlabelled.images import read_content
from nnunet_skd.unlabelled_data import checked_cases, read_record, record_file


@pytest.fixture
def toy(nnunet_env):
    return Toy(nnunet_env)


def refusal(toy: Toy, match: str, **options) -> None:
    """The command refuses, and writes nothing."""
    with pytest.raises(BadInput, match=match):
        toy.run(**options)
    assert not (toy.folder / "unlabelled").exists()


# --- what is made ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize(("dim", "channels"), [(2, 1), (2, 2), (3, 2)])
def test_nnunet_loads_and_draws_from_the_cases_and_the_dataset_stays_byte_for_byte(nnunet_env, dim, channels, ignore):
    toy = Toy(nnunet_env, dim, channels, ignore)
    toy.add("a", "b", size=40)
    toy.add("large", size=50)
    before = toy.hashes()
    toy.run()
    assert toy.hashes() == before
    assert toy.cases() == ["a", "b", "large"]

    plans = toy.manager()
    configuration = plans.get_configuration(toy.configuration)
    dataset = infer_dataset_class(str(toy.made))(str(toy.made))
    assert dataset.identifiers == ["a", "b", "large"]
    images = [str(path) for path in sorted(toy.source.glob("large_*"))]
    expected, _, _ = DefaultPreprocessor(verbose=False).run_case(images, None, plans, configuration, toy.description)
    voxels, seg, previous, _ = dataset.load_case("large")
    assert np.array_equal(voxels[:], expected) and voxels.shape == (channels, *((1,) if dim == 2 else ()), *[50] * dim)
    assert not seg[:].any() and previous is None

    labels = plans.get_label_manager(toy.description)
    loader = nnUNetDataLoader(dataset, 4, [32] * dim, [32] * dim, labels, oversample_foreground_percent=0)
    loader.has_ignore = False  # as the module's text says
    batch = next(loader)
    assert batch["data"].shape == (4, channels, *[32] * dim)
    assert batch["target"].shape == (4, 1, *[32] * dim)
    # nnU-Net's own settings work too, with or without an ignore label
    stock = nnUNetDataLoader(dataset, 2, [32] * dim, [32] * dim, labels, oversample_foreground_percent=0.5)
    if ignore:
        with pytest.warns(UserWarning, match="No annotated pixels"):
            next(stock)
    else:
        next(stock)


def test_outside_of_the_image_the_segmentation_is_minus_one_as_in_labelled_data(toy):
    voxels = image(2)
    voxels[:10, :10] = 0
    save(toy.source / "a_0000.png", voxels)
    toy.run()
    _, seg, _, _ = infer_dataset_class(str(toy.made))(str(toy.made)).load_case("a")
    assert (seg[0, 0, :10, :10] == -1).all() and (seg[0, 0, 10:, 10:] == 0).all()


def test_a_wide_patch_may_lie_anywhere(toy):
    """Drawn uniformly: all nine positions of a 32 pixel patch in 40 pixels are about equally frequent."""
    toy.add("a")
    toy.run()
    labels = toy.manager().get_label_manager(toy.description)
    dataset = infer_dataset_class(str(toy.made))(str(toy.made))
    loader = nnUNetDataLoader(dataset, 1, [32, 32], [32, 32], labels, oversample_foreground_percent=0)
    np.random.seed(0)
    rows = [loader.get_bbox((1, 40, 40), False, {})[0][1] for _ in range(1800)]
    assert np.allclose(np.bincount(rows, minlength=9), 200, atol=60)


def test_another_spacing_size_and_bit_depth_are_resampled_as_for_prediction(nnunet_env):
    toy = Toy(nnunet_env, dim=3)
    save(toy.source / "a_0000.nii.gz", image(3, 20, np.int16), spacing=(2.0, 2.0, 2.0))
    save(toy.source / "b_0000.nii.gz", image(3, 24, np.float32))
    toy.run()
    dataset = infer_dataset_class(str(toy.made))(str(toy.made))
    assert dataset.load_case("a")[0].shape == (1, 40, 40, 40)
    assert dataset.load_case("b")[0].shape == (1, 24, 24, 24)


def test_the_record_says_what_was_made_from_what(toy):
    toy.add("a")
    toy.run()
    record = read_record(toy.made)
    assert record_file(toy.made) == toy.folder / "unlabelled" / "nnUNetPlans_2d.json"
    assert (record["dataset"], record["plans"], record["configuration"]) == (DATASET, "nnUNetPlans", "2d")
    assert record["preprocessing"]["spacing"] == [1.0, 1.0]
    entry = record["cases"]["a"]
    source = toy.source / "a_0000.png"
    assert entry["images"] == [str(source.resolve())]
    assert entry["stamps"] == [[source.stat().st_size, source.stat().st_mtime_ns]]
    assert entry["made"] and len(entry["content"]) == 32


def test_configurations_that_share_their_data_share_the_images(toy, capsys):
    toy.add("a")
    toy.run()
    assert checked_cases(toy.manager(), "2d_w050") == ["a"]
    out = capsys.readouterr().out
    assert out.count("cases without labels in") == 1
    assert "left out: 3d_cascade_fullres is the second stage of a cascade" in out


def test_low_resolution_is_made_too_where_it_is_preprocessed(toy):
    (toy.folder / "nnUNetPlans_2d").rename(toy.folder / "lowres")
    toy.add("a")
    toy.run()
    assert checked_cases(toy.manager(), "3d_lowres") == ["a"]
    with pytest.raises(ValueError, match="there are no images without labels for 2d"):
        checked_cases(toy.manager(), "2d")


# --- again -----------------------------------------------------------------------------------------------------------


def ages(toy: Toy) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in toy.made.iterdir()}


def test_a_second_run_adds_new_cases_renews_changed_ones_and_leaves_the_rest(toy, monkeypatch):
    toy.add("a", "b")
    toy.run()
    before = ages(toy)
    toy.run()
    assert ages(toy) == before
    save(toy.source / "b_0000.png", image(2, 40))
    toy.add("c")
    toy.run()
    after = ages(toy)
    assert {name for name in before if before[name] != after[name]} == {"b.b2nd", "b_seg.b2nd", "b.pkl"}
    assert toy.cases() == ["a", "b", "c"]
    assert infer_dataset_class(str(toy.made))(str(toy.made)).load_case("b")[0].shape == (1, 1, 40, 40)


@pytest.mark.parametrize("ending", [".nii.gz", ".tif"])
def test_a_corrected_spacing_is_a_change(nnunet_env, ending):
    """It stands in a NIfTI file's header, or in a file beside a TIFF; the voxels stay."""
    toy = Toy(nnunet_env, dim=3)
    if ending == ".tif":
        toy.ending = toy.description["file_ending"] = ending
        toy.plans["image_reader_writer"] = "Tiff3DIO"
        toy.write_plans()
        (toy.folder / "dataset.json").write_text(json.dumps(toy.description))
        shutil.rmtree(toy.raw)
    voxels = image(3, 20)

    def write(spacing: float) -> None:
        if ending == ".tif":
            (toy.source / "a.json").write_text(json.dumps({"spacing": [spacing] * 3}))
            if not (toy.source / "a_0000.tif").is_file():
                tifffile.imwrite(toy.source / "a_0000.tif", voxels)
        else:
            save(toy.source / "a_0000.nii.gz", voxels, spacing=(spacing,) * 3)

    def size() -> int:
        return infer_dataset_class(str(toy.made))(str(toy.made)).load_case("a")[0].shape[-1]

    write(1.0)
    toy.run()
    assert size() == 20 and read_record(toy.made)["cases"]["a"]["spacing"] == [1, 1, 1]
    write(2.0)
    toy.run()
    assert size() == 40
    assert read_record(toy.made)["cases"]["a"]["spacing"] == [2, 2, 2]


def test_unchanged_images_are_not_read_again_not_even_after_they_were_touched_or_moved(toy, monkeypatch):
    toy.add("a")
    toy.run()
    before = ages(toy)
    moved = toy.source.rename(toy.source.with_name("moved"))
    toy.run(moved)
    assert ages(toy) == before and read_record(toy.made)["cases"]["a"]["images"] == [str(moved / "a_0000.png")]
    read = []

    def record_and_read(images, reader):
        read.extend(path.parent.name for path in images)
        return read_content(images, reader)

    monkeypatch.setattr(checks, "read_content", record_and_read)
    toy.run(moved)
    assert set(read) == {"imagesTr"}


def test_a_link_is_known_by_its_own_name(toy, tmp_path):
    """A store of content, such as DVC's, has names without file endings."""
    toy.add("a")
    (toy.source / "a_0000.png").rename(tmp_path / "ab12cd")
    (toy.source / "a_0000.png").symlink_to(tmp_path / "ab12cd")
    toy.run()
    assert toy.cases() == ["a"]
    assert read_record(toy.made)["cases"]["a"]["images"] == [str(toy.source / "a_0000.png")]


def test_images_of_a_second_folder_come_on_top_and_never_replace_others_of_the_same_name(toy, tmp_path):
    toy.add("a")
    toy.run()
    save_case(tmp_path / "second", "b", 2)
    toy.run(tmp_path / "second")
    assert toy.cases() == ["a", "b"]
    save_case(tmp_path / "second", "a", 2)
    with pytest.raises(BadInput, match="same name were preprocessed before .*--remove.*: a of .*collected"):
        toy.run(tmp_path / "second")


def test_an_image_that_was_deleted_from_its_folder_is_removed_and_those_of_other_folders_stay(toy, tmp_path, capsys):
    """Consent was withdrawn, or the scan was found to be broken."""
    toy.add("a", "b", "link")
    (toy.source / "link_0000.png").rename(tmp_path / "on_another_disk")
    (toy.source / "link_0000.png").symlink_to(tmp_path / "on_another_disk")
    toy.run()
    save_case(tmp_path / "second", "c", 2)
    toy.run(tmp_path / "second")
    (tmp_path / "on_another_disk").unlink()
    (tmp_path / "second" / "c_0000.png").unlink()
    (toy.source / "b_0000.png").unlink()
    before = ages(toy)
    save_case(tmp_path / "second", "d", 2)
    toy.run(tmp_path / "second")
    assert f"removed, because their images are no longer in {tmp_path / 'second'}: c\n" in capsys.readouterr().out
    assert toy.cases() == ["a", "b", "d", "link"] and not list(toy.made.glob("c*"))
    toy.run()
    assert f"removed, because their images are no longer in {toy.source}: b\n" in capsys.readouterr().out
    assert toy.cases() == ["a", "d", "link"] and not list(toy.made.glob("b*"))
    assert all(before[name] == age for name, age in ages(toy).items() if not name.startswith("d"))


def test_an_image_may_be_renamed(toy):
    toy.add("a")
    toy.run()
    (toy.source / "a_0000.png").rename(toy.source / "b_0000.png")
    toy.run()
    assert toy.cases() == ["b"]


def test_a_folder_that_is_empty_or_away_removes_nothing(toy):
    toy.add("a")
    toy.run()
    moved = toy.source.rename(toy.source.with_name("away"))
    for match in ("is not a folder", "holds no images"):
        with pytest.raises(BadInput, match=match):
            toy.run()
        toy.source.mkdir(exist_ok=True)
    assert toy.cases() == ["a"] and len(list(moved.iterdir())) == 1


def test_other_plans_make_all_anew_and_until_then_the_training_refuses(toy, capsys):
    toy.add("a")
    toy.run()
    before = ages(toy)
    entry = toy.plans["configurations"]["2d"]
    entry["batch_size"], entry["patch_size"] = 7, [16, 16]
    toy.write_plans()
    assert toy.cases() == ["a"]  # the network's part of the plans does not matter
    entry["spacing"] = [0.5, 0.5]
    toy.plans["foreground_intensity_properties_per_channel"]["0"]["mean"] = 90.0
    toy.write_plans()
    message = (
        r"made with other plans \(foreground_intensity_properties_per_channel.0.mean was 100.0, now is 90.0; "
        r"spacing was \[1.0, 1.0\], now is \[0.5, 0.5\]\).* nnunet-skd unlabelled -d 900 -c 2d -i .*collected$"
    )
    with pytest.raises(ValueError, match=message):
        toy.cases()
    toy.run()
    assert "the plans changed" in capsys.readouterr().out
    assert toy.cases() == ["a"] and ages(toy)["a.b2nd"] != before["a.b2nd"]


def test_vanished_files_are_named_and_made_again(toy):
    toy.add("a", "b")
    toy.run()
    (toy.made / "b_seg.b2nd").unlink()
    with pytest.raises(ValueError, match="files of b vanished from .*nnunet-skd unlabelled -d 900 -c 2d -i"):
        toy.cases()
    toy.run()
    assert toy.cases() == ["a", "b"]


def test_a_stray_file_among_the_labelled_cases_is_named(toy):
    toy.add("a")
    toy.run()
    (toy.made.parents[1] / "nnUNetPlans_2d" / ".DS_Store").touch()
    with pytest.raises(ValueError, match="nnUNetPlans_2d holds files that nnU-Net did not write. Take them out"):
        toy.cases()


def test_a_case_that_is_labelled_by_now_is_refused_for_training_and_removed_by_the_next_run(toy, capsys):
    toy.add("a", "b")
    toy.run()
    for folder in ("imagesTr", "labelsTr"):
        name = "a_0000.png" if folder == "imagesTr" else "a.png"
        (toy.raw / folder / name).write_bytes((toy.source / "a_0000.png").read_bytes())
    toy.preprocess_labelled("a")
    with pytest.raises(ValueError, match="a in .* are labelled cases by now"):
        toy.cases()
    with pytest.raises(BadInput, match="names of labelled cases .*: a$"):
        toy.run()
    (toy.source / "a_0000.png").unlink()
    toy.run()
    assert "removed, because they are labelled by now: a" in capsys.readouterr().out
    assert toy.cases() == ["b"] and not list(toy.made.glob("a*"))


def test_an_interrupted_run_goes_on(toy, monkeypatch):
    toy.add("a", "b", "c")
    real = preprocess_module._preprocess_case

    def stop_at_b(case, *arguments):
        if case == "b":
            raise KeyboardInterrupt
        return real(case, *arguments)

    monkeypatch.setattr(preprocess_module, "_preprocess_case", stop_at_b)
    with pytest.raises(KeyboardInterrupt):
        toy.run()
    assert toy.cases() == ["a"] and sorted(ages(toy)) == ["a.b2nd", "a.pkl", "a_seg.b2nd"]
    before = ages(toy)
    monkeypatch.setattr(preprocess_module, "_preprocess_case", real)
    toy.run()
    assert toy.cases() == ["a", "b", "c"] and before.items() <= ages(toy).items()


def test_a_case_that_fails_is_named_and_does_not_stop_the_others(toy, monkeypatch):
    toy.add("a", "b")
    real = DefaultPreprocessor.run_case_save

    def full(self, target, *arguments):
        if target.endswith("a"):
            raise OSError("No space left on device")
        real(self, target, *arguments)

    monkeypatch.setattr(DefaultPreprocessor, "run_case_save", full)
    with pytest.raises(BadInput, match=r"all others are complete.\s+2d: a \(OSError: No space left on device\)"):
        toy.run()
    assert toy.cases() == ["b"]


@pytest.mark.parametrize("recorded", [False, True])
def test_a_second_run_at_once_is_refused_and_loses_nothing(toy, tmp_path, monkeypatch, capsys, recorded):
    """A run reads the record early and writes it late, and takes the scratch of another for a killed one's."""
    if recorded:
        toy.add("before")
        toy.run()
    toy.add("a", "b")
    save_case(tmp_path / "second", "c", 2)
    real, at_once = preprocess_module._preprocess_case, []

    def meanwhile(case, *arguments):
        if not at_once:
            for options in (["-i", str(tmp_path / "second")], ["--remove"], ["--list"]):
                at_once.append(cli.main(["unlabelled", "-d", "900", "-np", "1", *options]))
        return real(case, *arguments)

    monkeypatch.setattr(preprocess_module, "_preprocess_case", meanwhile)
    toy.run()
    assert at_once == [2, 2, 0]
    assert capsys.readouterr().err.count("unlabelled. Wait until it has ended, then run the command again") == 2
    assert toy.cases() == ["a", "b"] + ["before"] * recorded
    toy.run(tmp_path / "second")
    assert "c" in toy.cases() and not (toy.folder / "unlabelled" / LOCK).exists()


def test_what_a_killed_run_held_and_what_another_has_let_go_hold_nobody(toy, monkeypatch):
    toy.add("a")
    file = toy.folder / "unlabelled" / LOCK
    file.parent.mkdir()
    file.touch()
    real, locked = lock.fcntl.flock, []

    def let_go_before(opened, how):
        locked.append(real(opened, how))
        if len(locked) == 1:
            file.unlink()

    monkeypatch.setattr(lock.fcntl, "flock", let_go_before)
    toy.run()
    assert toy.cases() == ["a"] and len(locked) == 2 and not file.exists()


@pytest.mark.parametrize("missing", ["module", "of the file system"])
def test_where_there_are_no_locks_it_works_without(toy, capsys, monkeypatch, missing):
    def cannot(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "fcntl", None) if missing == "module" else monkeypatch.setattr(
        lock.fcntl, "flock", cannot
    )
    toy.add("a")
    toy.run()
    assert toy.cases() == ["a"]
    assert ("has no locks: make sure that no other run works there" in capsys.readouterr().err) == (missing != "module")


# --- list and remove -------------------------------------------------------------------------------------------------


def test_list_and_remove(toy, capsys):
    assert cli.main(["unlabelled", "-d", "900", "--list"]) == 0
    assert "has no preprocessed images without labels" in capsys.readouterr().out
    before = toy.hashes()
    toy.add("a", "b")
    assert cli.main(["unlabelled", "-d", DATASET, "-i", str(toy.source), "-c", "2d", "-np", "1"]) == 0
    assert "2d: 2 cases without labels" in capsys.readouterr().out
    cli.main(["unlabelled", "-d", "900", "--list"])
    out = capsys.readouterr().out
    assert "2d: 2 of 2 cases are complete" in out and str(toy.source) in out and "they fit the plans" in out
    (toy.made / "b.pkl").unlink()
    cli.main(["unlabelled", "-d", "900", "--list"])
    assert "not usable: preprocessed files of b vanished" in capsys.readouterr().out

    (toy.made / "mine.txt").write_text("not made by the command")
    assert cli.main(["unlabelled", "-d", "900", "--remove"]) == 0
    assert [path.name for path in (toy.folder / "unlabelled").rglob("*") if path.is_file()] == ["mine.txt"]
    (toy.made / "mine.txt").unlink()
    toy.run()
    cli.main(["unlabelled", "-d", "900", "--remove"])
    assert not (toy.folder / "unlabelled").exists() and toy.hashes() == before
    assert len(list(toy.source.iterdir())) == 2
    cli.main(["unlabelled", "-d", "900", "--remove"])
    assert "Nothing to remove" in capsys.readouterr().out


def test_only_where_images_are_preprocessed_what_is_complete_is_kept(toy, capsys, monkeypatch):
    def fail(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    toy.add("a")
    toy.run()
    monkeypatch.setattr("nnunet_skd.tools.unlabelled.command.preprocess", fail)
    monkeypatch.setattr("nnunet_skd.tools.unlabelled.command.remove", fail)
    assert cli.main(["unlabelled", "-d", "900", "-i", str(toy.source)]) == 1
    assert "Read-only file system; what is complete is kept." in capsys.readouterr().err
    assert cli.main(["unlabelled", "-d", "900", "--remove"]) == 1
    assert "error: Read-only file system. Fix that" in capsys.readouterr().err


# --- refused ---------------------------------------------------------------------------------------------------------


def test_names_and_file_endings(toy):
    for name in ("a_0001.png", "b.png", "train_1_0000.png", "c_seg_0000.png", *(f"{n}_0000.jpg" for n in range(9, 20))):
        save(toy.source / name, image(2)) if name.endswith("png") else (toy.source / name).touch()
    (toy.source / ".DS_Store").touch()
    refusal(toy, r"missing channels \(add them, or take the case out\): a_0000.png")
    refusal(toy, r"no channel number in the name \(rename CASE.png to CASE_0000.png\): b.png")
    refusal(toy, r"names of labelled cases .*: train_1$")
    refusal(toy, r"end in _seg.*: c_seg\n")
    refusal(toy, r"files that do not end in .png.*: 10_0000.jpg, .* and 3 more")


def test_a_name_of_a_case_that_only_the_preprocessed_data_knows(toy):
    (toy.raw / "imagesTr" / "train_1_0000.png").unlink()
    toy.add("train_1")
    refusal(toy, "names of labelled cases .*: train_1")


def test_a_case_that_was_taken_out_of_the_dataset_is_not_labelled_any_more(toy):
    """nnU-Net leaves its label in gt_segmentations, and its data of configurations that are not preprocessed again."""
    for case in ("train_0", "train_1", "bad"):
        save(toy.folder / "gt_segmentations" / f"{case}.png", image(2))
    (toy.folder / "lowres").mkdir()
    for file in (toy.folder / "nnUNetPlans_2d").glob("train_1*"):
        (toy.folder / "lowres" / file.name.replace("train_1", "worse")).write_bytes(file.read_bytes())
    toy.add("bad", "worse")
    refusal(toy, "names of labelled cases of .*lowres .*: worse$")
    toy.run(configurations=["2d"])
    assert toy.cases() == ["bad", "worse"]


@pytest.mark.parametrize("gone", ["imagesTr", ""])
def test_without_the_raw_dataset_every_label_that_is_known_counts(toy, gone):
    save(toy.folder / "gt_segmentations" / "other.png", image(2))
    shutil.rmtree(toy.raw / gone)
    toy.add("train_1", "other")
    refusal(toy, "names of labelled cases of .*gt_segmentations .*: other\n")
    refusal(toy, "names of labelled cases of .*nnUNetPlans_2d .*: train_1$")


def test_a_label_without_an_image_is_a_label(toy):
    save(toy.raw / "labelsTr" / "other.png", image(2))
    toy.add("other")
    refusal(toy, "names of labelled cases of .*labelsTr .*: other$")


def test_a_missing_second_channel(nnunet_env):
    toy = Toy(nnunet_env, channels=2)
    toy.add("a")
    save_case(toy.source, "b", 2, channels=1)
    save_case(toy.source, "c", 2, channels=3)
    save(toy.source / "d_0000.png", image(2, 40))
    save(toy.source / "d_0001.png", image(2, 41))
    refusal(toy, r"missing channels \(.*\): b_0001.png")
    refusal(toy, r"other channels than the dataset's 2 \(C0, C1\): c has 3")
    refusal(toy, r"cannot be read .*: d_0000.png d_0001.png \(ERROR! Not all input images have the same shape!\)")


def test_colour_where_the_dataset_is_grey(toy):
    save(toy.source / "a_0000.png", RNG.integers(0, 256, (40, 40, 3), np.uint8))
    refusal(toy, r"other channels than the dataset's 1 \(C0\): a has 3")


def test_damaged_and_not_finite_images(nnunet_env):
    toy = Toy(nnunet_env, dim=3)
    toy.add("short", "checksum")
    for name, end in (("short", 5000), ("checksum", None)):
        path = toy.source / f"{name}_0000.nii.gz"
        stored = bytearray(path.read_bytes())
        if name == "checksum":
            stored[-6] ^= 1
        path.write_bytes(stored[:end])
    with gzip.open(toy.source / "data_0000.nii.gz", "wb") as stream:  # whole as gzip, but the voxels are too few
        stream.write(nibabel.Nifti1Image(image(3), np.eye(4)).to_bytes()[:-100])
    for name, value in (("nan", np.nan), ("inf", np.inf)):  # ITK reads both as 0
        voxels = image(3, dtype=np.float32)
        voxels[0, 0, 0] = value
        save(toy.source / f"{name}_0000.nii.gz", voxels)
    for name in ("short", "checksum", "data"):
        refusal(toy, rf"cannot be read \(fix them or take them out\): .*{name}_0000.nii.gz \(")
    refusal(toy, r"NaN or infinite .*: inf, nan$")


def test_a_truncated_png(toy):
    toy.add("a")
    path = toy.source / "a_0000.png"
    path.write_bytes(path.read_bytes()[:800])
    refusal(toy, r"cannot be read .*: a_0000.png \(")


def test_images_that_equal_labelled_ones_or_one_another(toy):
    labelled = np.asarray(Image.open(toy.raw / "imagesTr" / "train_1_0000.png"))
    save(toy.source / "renamed_0000.png", labelled.astype(np.uint16))  # another file, the same image
    toy.add("a")
    (toy.source / "b_0000.png").write_bytes((toy.source / "a_0000.png").read_bytes())
    refusal(toy, "equal a labelled one .*: renamed = train_1")
    refusal(toy, "there twice .*: b = a")


def test_an_image_that_was_labelled_since_under_another_name(toy):
    toy.add("a", "b")
    toy.run()
    (toy.raw / "imagesTr" / "patient_0000.png").write_bytes((toy.source / "a_0000.png").read_bytes())
    (toy.raw / "labelsTr" / "patient.png").write_bytes((toy.raw / "labelsTr" / "train_1.png").read_bytes())
    with pytest.raises(BadInput, match="equal a labelled one .*: a = patient"):
        toy.run()
    (toy.source / "a_0000.png").unlink()
    toy.run()
    assert toy.cases() == ["b"]


def test_an_image_that_another_folder_gave_already(toy, tmp_path):
    toy.add("a")
    toy.run()
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "z_0000.png").write_bytes((toy.source / "a_0000.png").read_bytes())
    with pytest.raises(BadInput, match="there twice .*: z = a"):
        toy.run(tmp_path / "second")


def test_a_test_image_is_named_and_taken(toy, capsys):
    toy.add("a", "b")
    (toy.raw / "imagesTs").mkdir()
    (toy.raw / "imagesTs" / "test_3_0000.png").write_bytes((toy.source / "b_0000.png").read_bytes())
    toy.run()
    assert "equal a test image, so that results on imagesTs are not of unseen images: b = test_3." in (
        capsys.readouterr().out
    )
    assert toy.cases() == ["a", "b"]


@pytest.mark.parametrize("variable", ["unset", "elsewhere"])
def test_without_the_raw_images_it_says_that_they_were_not_compared(toy, tmp_path, monkeypatch, capsys, variable):
    if variable == "unset":
        monkeypatch.delenv("nnUNet_raw")
    else:
        monkeypatch.setenv("nnUNet_raw", str(tmp_path / "empty"))
    toy.add("a")
    toy.run()
    assert "whether an image equals one of them was not checked" in capsys.readouterr().out
    assert toy.cases() == ["a"]


def test_folders_without_images(toy, tmp_path):
    refusal(toy, "missing is not a folder", folder=tmp_path / "missing")
    (toy.source / "deeper").mkdir()
    refusal(toy, "holds no images. They have to lie in the folder itself")


def test_configurations_that_cannot_be_chosen(toy):
    toy.add("a")
    refusal(toy, "no configuration 4d. They have: 2d, ", configurations=["4d"])
    refusal(
        toy, "3d_cascade_fullres is the second stage of a cascade.*Use 3d_low", configurations=["3d_cascade_fullres"]
    )
    fix = "nnUNetv2_preprocess -d 900 -c 3d_lowres -plans_name nnUNetPlans first"
    refusal(toy, f"3d_lowres is not preprocessed: .*Run {fix}", configurations=["3d_lowres"])
    with pytest.raises(ValueError, match="second stage of a cascade"):
        checked_cases(toy.manager(), "3d_cascade_fullres")
    for path in (toy.folder / "nnUNetPlans_2d").iterdir():
        path.unlink()
    refusal(toy, "no configuration is preprocessed. Run nnUNetv2_preprocess -d 900")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "901"], "Could not find a dataset with the ID 901"),
        (["-d", "900", "-p", "OtherPlans"], "OtherPlans.json does not exist. Name one that is there: -p nnUNetPlans"),
        (["-d", "Dataset900_toy"], "there is no Dataset900_toy. Did you mean Dataset900_Toy?"),
        (["-d", "DatasetToy"], "DatasetToy is not a dataset's name"),
        (["-d", "900", "-np", "0"], "-np is 0"),
    ],
)
def test_unknown_dataset_and_plans(toy, capsys, arguments, message):
    toy.add("a")
    assert cli.main(["unlabelled", *arguments, "-i", str(toy.source)]) == 2
    assert message in capsys.readouterr().err


def test_nnunet_preprocessed_is_not_set(toy, monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_preprocessed")
    assert cli.main(["unlabelled", "-d", "900", "--list"]) == 2
    assert "nnUNet_preprocessed is not set" in capsys.readouterr().err


def test_a_damaged_record_is_named(toy):
    toy.add("a")
    toy.run()
    record_file(toy.made).write_text("{")
    with pytest.raises(BadInput, match="nnUNetPlans_2d.json is damaged"):
        toy.run()


@pytest.mark.parametrize("key", [None, "preprocessing", "cases", "images", "made"])
@pytest.mark.parametrize("wrong", [[], "text", 1, None])
def test_a_record_of_another_form_is_damaged_for_a_training_too(toy, key, wrong):
    toy.add("a")
    toy.run()
    record = json.loads(record_file(toy.made).read_text())
    if key == "made":
        del record["cases"]["a"][key]
    elif key == "images":
        record["cases"]["a"][key] = wrong
    elif key is None:
        record = wrong
    else:
        record[key] = wrong
    record_file(toy.made).write_text(json.dumps(record))
    with pytest.raises(ValueError, match="nnUNetPlans_2d.json is damaged"):
        read_record(toy.made)


def test_the_command_in_the_message_names_plans_and_quotes_folders(toy, tmp_path):
    save_case(tmp_path / "my images", "a", 2)
    toy.run(tmp_path / "my images")
    (toy.made / "a.b2nd").unlink()
    (toy.folder / "nnUNetPlans.json").rename(toy.folder / "Mine.json")  # the plans_name inside stays
    plans = PlansManager(toy.plans)
    with pytest.raises(ValueError, match="-c 2d -p Mine -i '.*my images'$"):
        checked_cases(plans, "2d")
    assert preprocess_command(plans, "2d") == "nnUNetv2_preprocess -d 900 -c 2d -plans_name Mine"


# --- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_process_that_the_system_killed_is_an_error_with_a_way_out():
    with pytest.raises(BadInput, match="a process was killed.*-np"):
        list(for_each_case(os._exit, {"a": (1,), "b": (1,)}, 2, "preprocessing"))


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PROC, reason="finds the processes in /proc")
def test_kill_9_in_the_middle_loses_nothing_that_was_complete(nnunet_env):
    toy = Toy(nnunet_env, dim=3)
    before = toy.hashes()
    # 3D images of another spacing, so that a case takes long enough to be interrupted
    for n in range(12):
        save(toy.source / f"c{n:02d}_0000.nii.gz", image(3, 60), spacing=(1.5, 1.5, 1.5))
    call = [BIN / "nnunet-skd", "unlabelled", "-d", "900", "-i", toy.source, "-c", "3d_fullres", "-np", "2"]
    process = subprocess.Popen(call, env=os.environ | {"OMP_NUM_THREADS": "1"})
    end = time.monotonic() + 300
    while sum(bool(case["made"]) for case in (read_record(toy.made) or {"cases": {}})["cases"].values()) < 2:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    assert not workers_after_kill_9(process)

    complete = toy.cases()
    assert 2 <= len(complete) < 12
    dataset = infer_dataset_class(str(toy.made))(str(toy.made))
    for case in complete:
        assert dataset.load_case(case)[0].shape == (1, 90, 90, 90)
    kept = {name: age for name, age in ages(toy).items() if name.split(".")[0].removesuffix("_seg") in complete}
    toy.run(configurations=["3d_fullres"])
    assert toy.cases() == [f"c{n:02d}" for n in range(12)]
    assert kept.items() <= ages(toy).items()
    assert sorted(path.name for path in (toy.folder / "unlabelled").iterdir()) == [
        "nnUNetPlans_3d",
        "nnUNetPlans_3d.json",
    ]
    assert toy.hashes() == before
