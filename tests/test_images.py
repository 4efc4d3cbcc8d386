"""Images that were cut short: nothing that is damaged is scored, compared, drawn, converted or trained on."""

import gzip
import json
import math
import pickle
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES
from skimage import io

from nnunet_skd.tools.cli import main
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.images import UnreadableImage, is_finite, read_images, read_segmentation, require_whole

FORMATS = sorted(
    {(reader, ending) for reader in LIST_OF_IO_CLASSES for ending in reader.supported_file_endings}, key=str
)
CUTS = (0, 1, 20, 200, 0.2, 0.5, 0.6, 0.8, 0.9, 0.99)
NII = {"labels": {"background": 0, "a": 1, "b": 2}, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}


def noise(shape=(6, 20, 24)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)


def write(file, array, reader=None):
    if reader is not None and reader.__name__ == "Tiff3DIO":
        tifffile.imwrite(file, array)
    elif reader is not None and reader.__name__ == "NaturalImage2DIO":
        io.imsave(file, array[0], check_contrast=False)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(array), str(file))


@pytest.mark.parametrize(("reader", "ending"), FORMATS, ids=lambda value: getattr(value, "__name__", value))
def test_a_file_that_was_cut_is_refused_or_read_in_full(tmp_path, reader, ending):
    """For each of nnU-Net's readers and formats; what is cut off may be no voxel (the end of a PNG)."""
    file = tmp_path / f"a{ending}"
    write(file, noise(), reader)
    whole, raw = read_segmentation(reader, file)[0], file.read_bytes()
    refused = 0
    for cut in CUTS:
        file.write_bytes(raw[: cut if isinstance(cut, int) else int(cut * len(raw))])
        for read in (read_segmentation, lambda reader, file: read_images(reader, [file])):
            try:
                assert np.array_equal(read(reader, file)[0], whole), cut
            except BadInput as error:
                assert str(file) in str(error)
                refused += 1
    assert refused >= 2 * (len(CUTS) - 3)


def short(file):
    """A volume in sound gzip that lacks its last voxels."""
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-100]))


def cut(file):
    file.write_bytes(file.read_bytes()[: int(0.6 * file.stat().st_size)])


def flipped(file):
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


@pytest.mark.parametrize("damage", [cut, short, flipped])
@pytest.mark.parametrize("folder", ["reference", "prediction"])
def test_evaluate_and_compare_do_not_score_a_damaged_file(tmp_path, capsys, folder, damage):
    for name in ("reference", "prediction", "other"):
        (tmp_path / name).mkdir()
        for case in "ab":
            write(tmp_path / name / f"{case}.nii.gz", noise())
    (tmp_path / "dataset.json").write_text(json.dumps(NII))
    damage(tmp_path / folder / "b.nii.gz")
    reference, prediction, other, djfile, out = (
        str(tmp_path / name) for name in ("reference", "prediction", "other", "dataset.json", "out")
    )
    assert main(["evaluate", reference, prediction, "-djfile", djfile, "-np", "1", "-o", out]) == 2
    assert f"{folder}/b.nii.gz is damaged" in capsys.readouterr().err
    compare = ["compare", "--pred", other, prediction, "--ref", reference, "-djfile", djfile, "-np", "1", "-o", out]
    assert main(compare) == 2
    assert f"{folder}/b.nii.gz is damaged" in capsys.readouterr().err


def test_a_damaged_file_is_named_across_processes(tmp_path):
    with pytest.raises(UnreadableImage) as refused:
        require_whole(tmp_path / "nothing.nii.gz")
    again = pickle.loads(pickle.dumps(refused.value))  # as a worker process sends it
    assert type(again) is UnreadableImage and str(again) == str(refused.value)
    assert (again.file, again.reason) == (refused.value.file, refused.value.reason)


@pytest.mark.parametrize("damage", [cut, short, flipped])
@pytest.mark.parametrize("part", ["imagesTr/c3_0000", "labelsTr/c3", "imagesTs/t0_0000", "labelsTs/t0"])
def test_the_demo_does_not_train_on_a_damaged_file(tmp_path, capsys, monkeypatch, part, damage):
    monkeypatch.setattr("nnunet_skd.tools.demo.run.check_trainer", lambda *_: None)
    monkeypatch.setattr("nnunet_skd.tools.demo.run.Steps", None)  # what follows the data would take minutes
    data = tmp_path / "Dataset080_X"
    for split, cases in (("Tr", [f"c{i}" for i in range(6)]), ("Ts", ["t0"])):
        for kind, end in (("images", "_0000"), ("labels", "")):
            (data / f"{kind}{split}").mkdir(parents=True)
            for case in cases:
                write(data / f"{kind}{split}" / f"{case}{end}.nii.gz", noise())
    (data / "dataset.json").write_text(json.dumps(NII | {"numTraining": 6}))
    damage(data / f"{part}.nii.gz")
    assert main(["demo", "--data", str(data), "-o", str(tmp_path / "demo"), "-device", "cpu"]) == 2
    assert f"{part}.nii.gz is damaged" in capsys.readouterr().err


def test_headers_that_promise_what_no_file_holds(tmp_path):
    file = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(noise(), np.eye(4)), file)
    raw = file.read_bytes()
    for offset, values in (
        (42, b"\xff\x7f\xff\x7f\xff\x7f"),
        (42, b"\0\0"),
        (40, b"\0\0"),
        (70, (9999).to_bytes(2, "little")),
    ):
        file.write_bytes(raw[:offset] + values + raw[offset + len(values) :])
        with pytest.raises(BadInput, match="a.nii is damaged"):
            require_whole(file)
    for dtype in (np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])):
        nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), dtype), np.eye(4)), file)
        with pytest.raises(BadInput, match="not numbers"):
            require_whole(file)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_itk_replaces_by_zeros_is_seen(tmp_path, value):
    file = tmp_path / "a.nii.gz"
    voxels = noise().astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), file)
    assert is_finite(file)
    voxels[0, 0, 0] = value
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), file)
    assert not is_finite(file)
    for reader in LIST_OF_IO_CLASSES:
        if ".nii.gz" in reader.supported_file_endings:
            with pytest.raises(BadInput, match="NaN or infinite"):
                read_segmentation(reader, file)


def test_a_missing_file_a_folder_and_a_dangling_link(tmp_path):
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "nowhere")
    for name in ("folder.nii.gz", "link.nii.gz", "missing.nii.gz", "missing.png"):
        with pytest.raises(BadInput, match=name):
            require_whole(tmp_path / name)
    shutil.rmtree(tmp_path / "folder.nii.gz")
