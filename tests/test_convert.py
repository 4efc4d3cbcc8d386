"""`nnunet-skd convert` on small look-alikes of the published layouts."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.verify_dataset_integrity import check_cases
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from PIL import Image
from published import RNG, arcade, btcv, dca1, grey, m2caiseg, nifti, save, synapse, vessel, zipped

from nnunet_skd.tools import cli
from nnunet_skd.tools.convert import conversion
from nnunet_skd.tools.convert.archives import unpack
from nnunet_skd.tools.convert.common import BadCase, natural
from nnunet_skd.tools.convert.conversion import convert
from nnunet_skd.tools.convert.datasets import arcade as convert_arcade
from nnunet_skd.tools.convert.pixels import write_nifti
from nnunet_skd.tools.errors import BadInput


def left_behind(env):
    return sorted(path.name for place in ("nnUNet_raw", "nnUNet_preprocessed") for path in (env / place).iterdir())


def dataset_json(folder):
    return json.loads((folder / "dataset.json").read_text())


def pixels(path):
    return np.asarray(Image.open(path))


# --- each published layout -------------------------------------------------------------------------------------------


def test_dca1_from_the_archive(nnunet_env, tmp_path, capsys):
    source = dca1(tmp_path / "a")
    (source / "Thumbs.db").write_bytes(b"left by an operating system")
    archive = zipped(source, tmp_path / "DB_Angiograms_134.zip")
    assert cli.main(["convert", "dca1", str(archive), "-d", "82"]) == 0

    target = nnunet_env / "nnUNet_raw" / "Dataset082_DCA1"
    assert left_behind(nnunet_env) == ["Dataset082_DCA1", "Dataset082_DCA1"]
    assert sorted(p.name for p in target.iterdir()) == ["dataset.json", "imagesTr", "labelsTr", "splits_final.json"]
    assert np.array_equal(pixels(target / "imagesTr" / "dca1_007_0000.png"), pixels(source / "7.pgm"))
    assert np.array_equal(pixels(target / "labelsTr" / "dca1_007.png") * 255, pixels(source / "7_gt.pgm"))
    assert pixels(target / "labelsTr" / "dca1_007.png").dtype == np.uint8

    about = dataset_json(target)
    assert about["channel_names"] == {"0": "angiogram"} and about["labels"] == {"background": 0, "vessel": 1}
    assert about["numTraining"] == 134 and about["file_ending"] == ".png"
    assert "10.3390/app9245507" in about["reference"] and "citation" in about["licence"]
    assert "left_out" not in about

    (fold,) = json.loads((target / "splits_final.json").read_text())
    assert fold["train"] == [f"dca1_{n:03d}" for n in range(1, 101)]
    assert fold["val"] == [f"dca1_{n:03d}" for n in range(101, 135)]
    in_preprocessed = nnunet_env / "nnUNet_preprocessed" / "Dataset082_DCA1" / "splits_final.json"
    assert json.loads(in_preprocessed.read_text()) == [fold]

    said = capsys.readouterr().out
    assert said.rstrip().endswith(
        "nnUNetv2_plan_and_preprocess -d 82 -c 2d --verify_dataset_integrity\n"
        "  nnUNetv2_train 82 2d 0 -tr nnUNetTrainerDSKD"
    )
    assert check_cases(
        [str(target / "imagesTr/dca1_007_0000.png")], str(target / "labelsTr/dca1_007.png"), 1, NaturalImage2DIO
    )


def test_xcad_takes_the_labelled_part_and_invents_no_split(nnunet_env, tmp_path, capsys):
    source = tmp_path / "XCAD"
    for n in range(126):
        rgb = n == 0  # a grey picture that was saved as RGB
        save(source / "test" / "images" / f"{n:05d}_36.png", np.stack([grey()] * 3, -1) if rgb else grey())
        save(source / "test" / "masks" / f"{n:05d}_36.png", vessel())
    save(source / "train" / "images" / "00001_1.png", grey())
    target = convert("xcad", [source], 83)
    assert len(list((target / "imagesTr").iterdir())) == 126
    assert pixels(target / "imagesTr" / "xcad_00000_36_0000.png").shape == (12, 16)
    assert not (target / "splits_final.json").exists() and left_behind(nnunet_env) == ["Dataset083_XCAD"]
    assert "five folds" in capsys.readouterr().out


@pytest.mark.parametrize("segments", [False, True])
def test_arcade_syntax(nnunet_env, tmp_path, capsys, segments):
    target = convert("arcade", [arcade(tmp_path / "arcade")], 84, segments=segments)
    # polygons include their outline: columns 1..9, rows 1..4, and inside it columns 6..7, rows 2..3
    expected = np.zeros((12, 16), int)
    expected[1:5, 1:10] = 5 if segments else 1
    expected[2:4, 6:8] = 6 if segments else 1
    assert np.array_equal(pixels(target / "labelsTr" / "syntax_train_1.png"), expected)
    assert (pixels(target / "labelsTs" / "syntax_test_2.png") == (25 if segments else 1)).sum() == 4
    assert len(list((target / "imagesTs").iterdir())) == 2
    labels = dataset_json(target)["labels"]
    assert list(labels.values()) == list(range(26 if segments else 2))
    assert labels.get("segment 16c") == (25 if segments else None)
    assert json.loads((target / "splits_final.json").read_text()) == [
        {"train": ["syntax_train_1", "syntax_train_2"], "val": ["syntax_val_1", "syntax_val_2"]}
    ]
    # 2 x 2 pixels of overlap in each of the three parts
    assert ("12 pixels lie in two segments" in capsys.readouterr().out) == segments


def test_arcade_stenosis(nnunet_env, tmp_path):
    target = convert("arcade", [arcade(tmp_path / "arcade", "stenosis")], 86, task="stenosis")
    assert dataset_json(target)["labels"] == {"background": 0, "stenosis": 1}
    assert pixels(target / "labelsTr" / "stenosis_val_2.png").sum() == 4
    with pytest.raises(BadInput, match="--segments belongs to --task syntax"):
        convert("arcade", [tmp_path / "arcade"], 87, task="stenosis", segments=True)


def test_arcade_problems_are_named(nnunet_env, tmp_path):
    source = arcade(tmp_path / "arcade")
    os.rename(source / "syntax/val/images/2.png", source / "syntax/val/images/3.png")
    with pytest.raises(BadInput) as refusal:
        convert("arcade", [source], 84)
    assert "syntax/val/images/3.png: not in val.json" in str(refusal.value)
    assert "syntax/val/images/2.png: missing" in str(refusal.value)
    (source / "syntax/test/annotations/test.json").write_text('{"images": [')
    with pytest.raises(BadInput, match="syntax/test/annotations/test.json: damaged"):
        convert("arcade", [source], 84)
    assert left_behind(nnunet_env) == []


def test_a_published_test_part_does_not_validate_where_the_validation_part_is_missing(nnunet_env, tmp_path, capsys):
    source = arcade(tmp_path / "arcade")
    (source / "syntax/val/annotations/val.json").unlink()
    target = convert("arcade", [source], 84, partial=True)
    assert len(list((target / "imagesTs").iterdir())) == 2
    assert not any("test" in file.name for file in (target / "imagesTr").iterdir())
    assert not (target / "splits_final.json").exists()
    assert "its validation part is missing" in capsys.readouterr().out


def test_arcade_refuses_a_category_that_the_task_does_not_have(nnunet_env, tmp_path):
    source = arcade(tmp_path / "arcade")
    table = source / "syntax/train/annotations/train.json"
    table.write_text(table.read_text().replace('"name": "16c"', '"name": "catheter"'))
    with pytest.raises(BadInput, match="syntax_train_2: train.json: annotation of the category catheter"):
        convert("arcade", [source], 84)


@pytest.mark.parametrize("polygons", [[], [[1, 2, 3, 4]], {"counts": [3], "size": [2, 2]}])
def test_an_annotation_without_a_polygon_is_not_dropped(polygons):
    with pytest.raises(BadCase, match="polygon"):
        convert_arcade.draw((4, 4), polygons)


def test_synapse_stacks_the_slices_in_order(nnunet_env, tmp_path, capsys):
    volumes = synapse(tmp_path / "Synapse", slices=11)
    target = convert("synapse", [tmp_path / "Synapse"], 87)
    for case in (5, 1):  # slices, and h5
        image, label = volumes[case]
        read, about = SimpleITKIO().read_images([str(target / "imagesTr" / f"case{case:04d}_0000.nii.gz")])
        assert np.array_equal(read[0], image) and about["spacing"] == [1, 1, 1]
        assert np.array_equal(SimpleITKIO().read_seg(str(target / "labelsTr" / f"case{case:04d}.nii.gz"))[0][0], label)
    (fold,) = json.loads((target / "splits_final.json").read_text())
    assert (len(fold["train"]), len(fold["val"])) == (18, 12) and "case0008" in fold["val"]
    assert dataset_json(target)["labels"]["liver"] == 5 and len(dataset_json(target)["labels"]) == 9
    said = capsys.readouterr().out
    assert "placeholder" in said and "nnUNetv2_train 87 2d 0" in said


def test_synapse_without_h5py_is_refused_before_work(nnunet_env, tmp_path, monkeypatch):
    synapse(tmp_path / "Synapse")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(BadInput, match=r"nnunet_skd\[convert\]"):
        convert("synapse", [tmp_path / "Synapse"], 87)


def test_synapse_names_missing_slices_unknown_labels_and_damaged_files(nnunet_env, tmp_path):
    source = tmp_path / "Synapse"
    synapse(source)
    (source / "train_npz" / "case0005_slice001.npz").unlink()
    with pytest.raises(BadInput, match="case0005_slice001.npz: missing"):
        convert("synapse", [source], 87)
    np.savez(source / "train_npz" / "case0005_slice001.npz", image=np.zeros((5, 6)), label=np.full((5, 6), 9.0))
    damaged = source / "train_npz" / "case0006_slice002.npz"
    damaged.write_bytes(damaged.read_bytes()[:100])
    (source / "test_vol_h5" / "case0002.npy.h5").write_bytes(b"no hdf5 file")
    with pytest.raises(BadInput) as refusal:
        convert("synapse", [source], 87)
    assert "case0005: unknown label 9 (known are 0 to 8)" in str(refusal.value)
    assert "case0006: case0006_slice002.npz is damaged" in str(refusal.value)
    assert "case0002: case0002.npy.h5 is damaged" in str(refusal.value)
    assert left_behind(nnunet_env) == []


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_btcv(nnunet_env, tmp_path, ending):
    source = btcv(tmp_path / "RawData", ending)
    archive = tmp_path / "RawData.tar.gz"
    with tarfile.open(archive, "w:gz") as opened:
        opened.add(source, "RawData")
    target = convert("btcv", [archive], 88, name="BTCV13")
    assert target.name == "Dataset088_BTCV13"
    for kind, name in (("image", "img0021"), ("label", "label0021")):
        folder = "img" if kind == "image" else "label"
        first, about = SimpleITKIO().read_images([str(source / "Training" / folder / f"{name}{ending}")])
        ours = target / ("imagesTr/btcv_0021_0000.nii.gz" if kind == "image" else "labelsTr/btcv_0021.nii.gz")
        second, about_ours = SimpleITKIO().read_images([str(ours)])
        assert np.array_equal(first, second) and np.allclose(about["spacing"], about_ours["spacing"])
    (fold,) = json.loads((target / "splits_final.json").read_text())
    assert (len(fold["train"]), len(fold["val"])) == (18, 12) and "btcv_0008" in fold["val"]
    assert dataset_json(target)["labels"]["left_adrenal_gland"] == 13


def test_volumes_that_disagree_or_are_cut_short_are_named(nnunet_env, tmp_path):
    source = btcv(tmp_path / "RawData")
    nifti(source / "Training/label/label0002.nii.gz", np.zeros((3, 4, 6), np.uint8))
    nifti(source / "Training/label/label0003.nii.gz", np.zeros((3, 4, 5), np.uint8), spacing=(1, 1, 1))
    nifti(source / "Training/label/label0004.nii.gz", np.full((3, 4, 5), 14, np.uint8))
    for path in (source / "Training/img/img0005.nii.gz", source / "Training/label/label0006.nii.gz"):
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BadInput, match="5 problems") as refusal:
        convert("btcv", [source], 88)
    said = str(refusal.value)
    assert "btcv_0002: img0002.nii.gz is (3, 4, 5), label0002.nii.gz (3, 4, 6) voxels" in said
    assert "img0003.nii.gz has a spacing of 3 x 0.8 x 0.7 mm, label0003.nii.gz of 1 x 1 x 1 (z, y, x)" in said
    assert "btcv_0004: unknown label 14 (known are 0 to 13)" in said
    assert "btcv_0005: img0005.nii.gz is damaged" in said and "btcv_0006: label0006.nii.gz is damaged" in said


def test_an_image_and_a_label_of_other_orientations_are_refused(tmp_path):
    """Both lie at the same place, but their voxels do not belong together: nnU-Net pairs them by their indices."""
    image, label = tmp_path / "img.nii.gz", tmp_path / "label.nii.gz"
    nifti(image, RNG.integers(1, 999, (9, 9, 9), dtype=np.int16))
    nifti(label, np.zeros((9, 9, 9), np.uint8))
    flipped = sitk.Flip(sitk.ReadImage(str(label)), (True, False, False))
    assert flipped.GetDirection() != sitk.ReadImage(str(image)).GetDirection()
    sitk.WriteImage(flipped, str(label))
    with pytest.raises(BadCase, match=r"img.nii.gz and label.nii.gz are stored in different orientations"):
        write_nifti(image, label, {"background": 0}, tmp_path / "i.nii.gz", tmp_path / "l.nii.gz")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_volume_that_itk_would_read_as_zeros_is_damaged(tmp_path, ending):
    image, label = tmp_path / f"img{ending}", tmp_path / f"label{ending}"
    nifti(image, RNG.integers(1, 999, (9, 9, 9), dtype=np.int16))
    nifti(label, np.zeros((9, 9, 9), np.uint8))
    assert write_nifti(image, label, {"background": 0}, tmp_path / "i.nii.gz", tmp_path / "l.nii.gz").labels == {0}
    image.write_bytes(image.read_bytes()[:-200])
    with pytest.raises(BadCase, match="img.nii.* is damaged"):
        write_nifti(image, label, {"background": 0}, tmp_path / "i.nii.gz", tmp_path / "l.nii.gz")


def test_flare22_from_two_archives(nnunet_env, tmp_path):
    for n in range(1, 51):
        nifti(tmp_path / "images" / f"FLARE22_Tr_{n:04d}_0000.nii.gz", np.zeros((2, 3, 4), np.int16))
        nifti(tmp_path / "labels" / f"FLARE22_Tr_{n:04d}.nii.gz", RNG.integers(0, 14, (2, 3, 4), dtype=np.uint8))
    archives = [zipped(tmp_path / kind, tmp_path / f"{kind}.zip") for kind in ("images", "labels")]
    target = convert("flare22", archives, 89)
    (fold,) = json.loads((target / "splits_final.json").read_text())
    held_out = [10, 14, 15, 18, 20, 24, 28, 40, 46, 49]
    assert fold["val"] == [f"FLARE22_Tr_{n:04d}" for n in held_out] and len(fold["train"]) == 40
    assert dataset_json(target)["labels"]["left_kidney"] == 13


def test_m2caiseg(nnunet_env, tmp_path):
    source = m2caiseg(tmp_path / "m2caiSeg dataset")
    target = convert("m2caiseg", [source], 90)
    expected = np.stack([np.arange(19), np.arange(19)[::-1]])
    assert np.array_equal(pixels(target / "labelsTr" / "v_1.png"), expected)
    read, _ = NaturalImage2DIO().read_images([str(target / "imagesTr" / "v_1_0000.png")])
    assert np.array_equal(read[:, 0], pixels(source / "train/images/v_1.jpg").transpose(2, 0, 1))
    about = dataset_json(target)
    assert about["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert about["labels"]["liver"] == 10 and about["labels"]["unknown"] == 18 and len(about["labels"]) == 19
    assert json.loads((target / "splits_final.json").read_text()) == [{"train": ["v_0", "v_1", "v_2"], "val": ["v_3"]}]
    assert sorted(p.name for p in (target / "labelsTs").iterdir()) == ["v_4.png", "v_5.png"]
    assert check_cases([str(target / "imagesTr/v_1_0000.png")], str(target / "labelsTr/v_1.png"), 3, NaturalImage2DIO)


def test_m2caiseg_without_validation_part_validates_on_the_test_part(nnunet_env, tmp_path):
    source = m2caiseg(tmp_path / "m2")
    shutil.rmtree(source / "trainval")
    target = convert("m2caiseg", [source], 90)
    assert json.loads((target / "splits_final.json").read_text())[0]["val"] == ["v_4", "v_5"]
    assert not (target / "imagesTs").exists()


def test_an_unknown_colour_is_refused_or_counted(nnunet_env, tmp_path, capsys):
    source = m2caiseg(tmp_path / "m2")
    path = source / "test/groundtruth/v_4_gt.png"
    mask = pixels(path).copy()
    mask[0, 10] = (84, 171, 3)  # nearly liver, where liver was
    save(path, mask)
    with pytest.raises(BadInput, match=r"v_4: 1 colours .* \(84, 171, 3\) in 1 pixels"):
        convert("m2caiseg", [source], 90)
    assert left_behind(nnunet_env) == []
    target = convert("m2caiseg", [source], 90, nearest_colour=True)
    assert pixels(target / "labelsTs" / "v_4.png")[0, 10] == 10
    assert "1 mask pixels had a colour outside the class table" in capsys.readouterr().out


def test_m2caiseg_refuses_two_files_of_one_name_that_differ(nnunet_env, tmp_path):
    source = m2caiseg(tmp_path / "m2")
    save(source / "trainval/groundtruth/v_0_gt.png", np.zeros((2, 19, 3), np.uint8))
    shutil.copy(source / "train/images/v_1.jpg", source / "test/images/v_1.jpg")
    shutil.copy(source / "train/groundtruth/v_1_gt.png", source / "test/groundtruth/v_1_gt.png")
    with pytest.raises(BadInput) as refusal:
        convert("m2caiseg", [source], 90)
    assert "trainval/groundtruth/v_0_gt.png: not the file of this name in train" in str(refusal.value)
    assert "v_1: in train and in test" in str(refusal.value)


# --- what every conversion promises ----------------------------------------------------------------------------------


def test_unpaired_missing_and_damaged_files_are_named_and_nothing_is_left(nnunet_env, tmp_path, capsys):
    source = dca1(tmp_path / "a")
    (source / "5_gt.pgm").unlink()
    (source / "6.pgm").unlink()
    for name in ("7.pgm", "7_gt.pgm"):
        (source / name).unlink()
    assert cli.main(["convert", "dca1", str(source), "-d", "82"]) == 2
    said = capsys.readouterr().err
    assert "nothing was written, because of 3 problems" in said and "--partial" in said
    assert "5.pgm: no reference" in said and "6_gt.pgm: no image" in said and "7.pgm and 7_gt.pgm: missing" in said
    assert left_behind(nnunet_env) == []


def test_files_that_cannot_be_read_are_all_named(nnunet_env, tmp_path):
    source = dca1(tmp_path / "a")
    (source / "3.pgm").write_bytes((source / "3.pgm").read_bytes()[:40])
    (source / "4_gt.pgm").write_bytes(b"")
    save(source / "9_gt.pgm", vessel(12, 15))
    with pytest.raises(BadInput, match="3 problems") as refusal:
        convert("dca1", [source], 82)
    said = str(refusal.value)
    assert "dca1_003: 3.pgm is damaged" in said and "dca1_004: 4_gt.pgm is damaged" in said
    assert "dca1_009: the image is (12, 16), its reference (12, 15) pixels" in said
    assert left_behind(nnunet_env) == []


def test_partial_converts_the_rest_and_records_what_is_missing(nnunet_env, tmp_path, capsys):
    source = dca1(tmp_path / "a", [1, 2, 3, 101, 102])
    (source / "2.pgm").write_bytes(b"P5")
    target = convert("dca1", [source], 82, partial=True)
    assert json.loads((target / "splits_final.json").read_text()) == [
        {"train": ["dca1_001", "dca1_003"], "val": ["dca1_101", "dca1_102"]}
    ]
    left_out = dataset_json(target)["left_out"]
    assert len(left_out) == 134 - 5 + 1 and any("2.pgm is damaged" in line for line in left_out)
    assert dataset_json(target)["numTraining"] == 4 and "dca1_002: 2.pgm is damaged" in capsys.readouterr().out
    assert not list(target.glob("*/dca1_002*"))


def test_partial_still_refuses_when_nothing_is_left(nnunet_env, tmp_path):
    source = dca1(tmp_path / "a", [1])
    (source / "1.pgm").write_bytes(b"P5")
    with pytest.raises(BadInput, match="1.pgm is damaged"):
        convert("dca1", [source], 82, partial=True)
    assert left_behind(nnunet_env) == []


def test_masks_are_binarised_with_a_check(nnunet_env, tmp_path, capsys):
    source = dca1(tmp_path / "a")
    mask = vessel()
    mask[0, :3] = 3, 127, 128
    save(source / "8_gt.pgm", mask)
    save(source / "9_gt.pgm", vessel() // 255)  # 0 and 1 instead of 0 and 255
    save(source / "10_gt.pgm", vessel() * 0)
    with pytest.raises(BadInput, match="dca1_008: the mask holds the values 0, 3, 127, 128, 255, .* --threshold"):
        convert("dca1", [source], 82)
    target = convert("dca1", [source], 82, threshold=128)
    assert pixels(target / "labelsTr" / "dca1_008.png")[0, :3].tolist() == [0, 0, 1]
    assert np.array_equal(pixels(target / "labelsTr" / "dca1_009.png"), vessel() // 255)
    said = capsys.readouterr().out
    assert "3 mask pixels were neither black nor white" in said and "background only: dca1_010" in said


@pytest.mark.parametrize("place", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_an_id_in_use_is_refused(nnunet_env, tmp_path, place):
    (nnunet_env / place / "Dataset082_Mine").mkdir()
    with pytest.raises(BadInput, match="-d 82 is in use by Dataset082_Mine.*83 is free"):
        convert("dca1", [tmp_path], 82)


@pytest.mark.parametrize(
    ("dataset_id", "name", "message"),
    [(0, None, "1 to 999"), (1000, None, "1 to 999"), (82, "a/b", "letters and digits"), (82, "a__b", "single _")],
)
def test_ids_and_names_that_nnunet_cannot_take(nnunet_env, tmp_path, dataset_id, name, message):
    with pytest.raises(BadInput, match=message):
        convert("dca1", [tmp_path], dataset_id, name=name)


def test_two_sources_of_one_name_are_read_as_one(nnunet_env, tmp_path):
    halves = [dca1(tmp_path / "a", range(1, 61)), dca1(tmp_path / "b", range(61, 136))]
    with pytest.raises(BadInput, match="1 problem:\n  135.pgm: not one of the 134 published images"):
        convert("dca1", halves, 82)
    target = convert("dca1", [str(half) for half in halves], 82, partial=True)
    assert dataset_json(target)["numTraining"] == 134


def test_environment_and_source_are_checked_first(nnunet_env, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="no data set 'dca2'. Choose from dca1, xcad"):
        convert("dca2", [tmp_path], 82)
    with pytest.raises(BadInput, match="nowhere.zip does not exist"):
        convert("dca1", [tmp_path / "nowhere.zip"], 82)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(BadInput, match="nothing of this data set was found.*N.pgm.*other/photo.jpg"):
        convert("dca1", [tmp_path / "other"], 82)
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(BadInput, match="nnUNet_raw is not set"):
        convert("dca1", [tmp_path], 82)


def test_without_nnunet_preprocessed_the_copy_command_is_printed(nnunet_env, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_preprocessed")
    target = convert("dca1", [dca1(tmp_path / "a")], 82)
    assert f'cp {target}/splits_final.json "$nnUNet_preprocessed/Dataset082_DCA1/"' in capsys.readouterr().out
    (tmp_path / "raw data").mkdir()
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw data"))
    target = convert("dca1", [tmp_path / "a"], 83)
    assert f"cp '{target}/splits_final.json' \"$nnUNet" in capsys.readouterr().out


def test_an_interrupted_conversion_leaves_nothing(nnunet_env, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("nnunet_skd.tools.convert.dataset.generate_dataset_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert("dca1", [dca1(tmp_path / "a")], 82)
    assert left_behind(nnunet_env) == []


def test_natural_order():
    assert sorted(["10", "9", "1"], key=natural) == ["1", "9", "10"]
    assert sorted([("a", "s10"), ("a", "s9")], key=natural) == [("a", "s9"), ("a", "s10")]


# --- archives --------------------------------------------------------------------------------------------------------


def evil_zip(path, name, mode=0o100644, content=b"x"):
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("1.pgm", b"harmless")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        opened.writestr(info, content)
    return path


def evil_tar(path, name, kind=tarfile.REGTYPE, link=""):
    with tarfile.open(path, "w") as opened:
        for member, type_, to in (("1.pgm", tarfile.REGTYPE, ""), (name, kind, link)):
            info = tarfile.TarInfo(member)
            info.type, info.linkname = type_, to
            opened.addfile(info, BytesIO(b""))
    return path


OUTSIDE = ["../evil.pgm", "a/../../evil.pgm", "/tmp/evil.pgm", "C:/evil.pgm"]


@pytest.mark.parametrize(
    ("make", "name"),
    # in a tar, a backslash is a letter
    [(make, name) for make in (evil_zip, evil_tar) for name in OUTSIDE] + [(evil_zip, "..\\evil.pgm")],
)
def test_members_outside_the_target_are_refused_before_anything_is_unpacked(nnunet_env, tmp_path, make, name):
    with pytest.raises(BadInput, match="outside the target"):
        convert("dca1", [make(tmp_path / "archive", name)], 82)
    assert not list(tmp_path.rglob("evil*")) and not list(tmp_path.rglob("*1.pgm")) and left_behind(nnunet_env) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    with pytest.raises(BadInput, match="link or a device"):
        unpack(evil_tar(tmp_path / "a.tar", "2.pgm", kind, "../../outside"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_member_that_an_archive_holds_twice_is_refused(tmp_path):
    """As ``tar -r`` makes it: which one is meant?"""
    with pytest.raises(BadInput, match="holds twice: 1.pgm"):
        unpack(evil_tar(tmp_path / "a.tar", "1.pgm"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_member_twice_by_two_spellings_is_refused(tmp_path):
    with pytest.raises(BadInput, match="holds twice: 1.pgm"):
        unpack(evil_zip(tmp_path / "a.zip", ".//1.pgm"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_in_a_zip_are_refused(tmp_path):
    with pytest.raises(BadInput, match="link or a device"):
        unpack(evil_zip(tmp_path / "a.zip", "2.pgm", 0o120777, b"/etc"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_and_foreign_archives_are_refused(nnunet_env, tmp_path):
    archive = zipped(dca1(tmp_path / "a", [1]), tmp_path / "a.zip")
    content = bytearray(archive.read_bytes())
    content[80:90] = b"0123456789"  # inside the first image: its checksum fails
    archive.write_bytes(content)
    with pytest.raises(BadInput, match="cannot be unpacked.*1.pgm"):
        convert("dca1", [archive], 82)
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    with pytest.raises(BadInput, match="not a zip or tar archive"):
        convert("dca1", [tmp_path / "a.rar"], 82)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as opened:
        opened.add(tmp_path / "a", "a")
    whole = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="cannot be unpacked"):
        convert("dca1", [tmp_path / "a.tar.gz"], 82)
    assert left_behind(nnunet_env) == []


def test_a_split_that_cannot_be_copied_leaves_nothing_of_itself(nnunet_env, tmp_path, monkeypatch, capsys):
    def full(file, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    monkeypatch.setattr(conversion, "write_file", full)
    target = convert("dca1", [dca1(tmp_path / "a")], 82)
    assert (target / "splits_final.json").is_file() and left_behind(nnunet_env) == ["Dataset082_DCA1"]
    assert "cp " in capsys.readouterr().out


def test_an_archive_larger_than_the_disk_is_refused(nnunet_env, tmp_path, monkeypatch):
    archive = zipped(dca1(tmp_path / "a", [1]), tmp_path / "a.zip")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(BadInput, match="has 0.0 GiB left"):
        convert("dca1", [archive], 82)


# --- to a trained epoch ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_converted_data_set_trains_an_epoch_on_the_published_split(nnunet_env, tmp_path, make_known):
    source = dca1(tmp_path / "a", [1, 2, 3, 101, 102], shape=(40, 48))
    bin_folder = Path(sys.executable).parent

    def call(*command, **more):
        env = dict(os.environ, OMP_NUM_THREADS="1") | more
        done = subprocess.run([str(bin_folder / command[0]), *command[1:]], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    said = call("nnunet-skd", "convert", "dca1", str(source), "-d", "82", "--partial")
    plan, train = (line.split() for line in said.rstrip().splitlines()[-2:])
    call(*plan, "-np", "1", "-npfp", "1", nnUNet_n_proc_DA="1")  # the planner fails on 0
    path = nnunet_env / "nnUNet_preprocessed" / "Dataset082_DCA1" / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    configuration = plans["configurations"]["2d"]
    configuration |= {"patch_size": [32, 32], "batch_size": 2}
    configuration["architecture"]["arch_kwargs"] |= {
        "n_stages": 3,  # with two, nnU-Net's deep supervision has one output, of weight 0: the loss is not a number
        "features_per_stage": [4, 4, 4],
        "kernel_sizes": [[3, 3]] * 3,
        "strides": [[1, 1], [2, 2], [2, 2]],
        "n_conv_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
    }
    path.write_text(json.dumps(plans))
    # the stock trainer, in a hurry: this test is about the data
    train[train.index("nnUNetTrainerDSKD")] = "nnUNetTrainerShort"
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "short.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerShort(nnUNetTrainer):\n"
        "    def initialize(self):\n"
        "        super().initialize()\n"
        "        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 20, 5\n"
    )
    make_known(tmp_path / "trainers")
    said = call(*train, "-device", "cpu")
    assert "This split has 3 training and 2 validation cases." in said
    losses = [float(line.split()[-1]) for line in said.splitlines() if " train_loss " in line or " val_loss " in line]
    assert len(losses) == 2 and np.isfinite(losses).all()
    folder = nnunet_env / "nnUNet_results" / "Dataset082_DCA1" / "nnUNetTrainerShort__nnUNetPlans__2d" / "fold_0"
    assert (folder / "checkpoint_final.pth").exists()
    assert sorted(p.stem for p in (folder / "validation").glob("*.png")) == ["dca1_101", "dca1_102"]
