"""Look-alikes of the published layouts that ``nnunet-skd convert`` reads, with random pixels."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from volumes import write_volume

from nnunet_skd.tools.convert.datasets import m2caiseg as convert_m2caiseg
from nnunet_skd.tools.convert.datasets import synapse as convert_synapse

RNG = np.random.default_rng(0)


def grey(*shape):
    return RNG.integers(0, 256, shape or (12, 16), dtype=np.uint8)


def vessel(*shape):
    mask = np.zeros(shape or (12, 16), np.uint8)
    mask[3:5, 2:9] = 255
    return mask


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def dca1(folder, numbers=range(1, 135), shape=(12, 16)):
    for n in numbers:
        save(folder / "Database_134_Angiograms" / f"{n}.pgm", grey(*shape))
        save(folder / "Database_134_Angiograms" / f"{n}_gt.pgm", vessel(*shape))
    return folder / "Database_134_Angiograms"


def zipped(folder, archive):
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(folder.rglob("*")):
            opened.write(path, path.relative_to(folder.parent))
    return archive


def arcade(folder, task="syntax", parts=None):
    """Two images per part. Image 1: a rectangle of segment 5 and one of 6 that overlap; image 2: segment 16c."""
    box = lambda x0, y0, x1, y1: [[x0, y0, x1, y0, x1, y1, x0, y1]]  # noqa: E731
    names = [*"1 2 3 4 5 6 7 8 9 9a 10 10a 11 12 12a 13 14 14a 15 16 16a 16b 16c 12b 14b stenosis".split()]
    number = {name: n for n, name in enumerate(names, 1)}
    for part in parts or ("train", "val", "test"):
        what = ["stenosis"] * 3 if task == "stenosis" else ["5", "6", "16c"]
        shapes = [box(1, 1, 9.9, 4.9), box(6, 2, 7, 3), box(0, 0, 3, 0.5)]
        table = {
            "images": [{"id": 7, "file_name": "1.png"}, {"id": 3, "file_name": "2.png"}],
            "categories": [{"id": n, "name": name} for name, n in number.items()],
            # one id for all, as annotation ids are not unique in the published files
            "annotations": [
                {"id": 279, "image_id": image, "category_id": number[name], "segmentation": shape}
                for image, name, shape in zip((7, 7, 3), what, shapes, strict=True)
            ],
        }
        (folder / task / part / "annotations").mkdir(parents=True)
        (folder / task / part / "annotations" / f"{part}.json").write_text(json.dumps(table))
        for n in (1, 2):
            save(folder / task / part / "images" / f"{n}.png", grey())
    return folder


def synapse(folder, slices=3):
    h5py = pytest.importorskip("h5py")
    for place in ("train_npz", "test_vol_h5"):
        (folder / place).mkdir(parents=True)
    volumes = {}
    for case in convert_synapse.TRAIN | convert_synapse.TEST:
        image = RNG.random((slices, 5, 6), dtype=np.float32)
        label = RNG.integers(0, 9, image.shape).astype(np.float32)
        volumes[case] = image, label
        if case in convert_synapse.TEST:
            with h5py.File(folder / "test_vol_h5" / f"case{case:04d}.npy.h5", "w") as file:
                file["image"], file["label"] = image, label
        else:
            for z in range(slices):
                name = f"case{case:04d}_slice{z:03d}.npz"
                np.savez(folder / "train_npz" / name, image=image[z], label=label[z])
    return volumes


def nifti(path, array, spacing=(0.7, 0.8, 3.0)):
    write_volume(path, array, spacing)


def btcv(folder, ending=".nii.gz"):
    for n in sorted(convert_synapse.TRAIN | convert_synapse.TEST):
        shape = (3, 4, 5)
        nifti(folder / "Training/img" / f"img{n:04d}{ending}", RNG.integers(-1000, 1000, shape, dtype=np.int16))
        label = RNG.integers(0, 14, shape, dtype=np.uint8)
        nifti(folder / "Training/label" / f"label{n:04d}{ending}", label)
    nifti(folder / "Testing/img/img0061.nii.gz", np.zeros((3, 4, 5), np.int16))
    return folder


def m2caiseg(folder):
    """Names 0-5: 0, 1, 2 train; trainval has these and 3; 4, 5 test. The mask shows all colours in order."""
    colours = np.array(list(convert_m2caiseg.COLOURS.values()), np.uint8)
    for name in range(6):
        image, mask = RNG.integers(0, 256, (2, 19, 3), dtype=np.uint8), np.stack([colours, colours[::-1]])
        for part in {3: ["trainval"], 4: ["test"], 5: ["test"]}.get(name, ["train", "trainval"]):
            save(folder / part / "images" / f"v_{name}.jpg", image)
            save(folder / part / "groundtruth" / f"v_{name}_gt.png", mask)
    return folder
