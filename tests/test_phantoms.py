"""The phantoms: exact masks, physics that points the right way, nnU-Net's raw format, the same bytes every time."""

import json

import numpy as np
import pytest
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from scipy.ndimage import binary_dilation, binary_erosion

from nnunet_skd.tools.demo.angiogram import draw_angiogram, path_length
from nnunet_skd.tools.demo.ct import draw_ct, fill_tube
from nnunet_skd.tools.demo.phantoms import write_phantom_dataset
from nnunet_skd.tools.errors import BadInput

TINY = {2: (64, 64), 3: (16, 32, 32)}


def _files(folder):
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_beam_through_a_straight_tube():
    # A tube of radius 3 along row 10: at distance d from its axis the beam is 2 sqrt(9 - d^2) long.
    points = np.stack([np.full(101, 10.0), np.linspace(-5, 45, 101)], axis=1)
    length = path_length(points, np.full(101, 3.0), (21, 40))
    expected = [0, 2 * np.sqrt(5), 2 * np.sqrt(8), 6, 2 * np.sqrt(8), 2 * np.sqrt(5), 0]
    np.testing.assert_allclose(length[7:14, 20], expected)
    assert not length[:7].any() and not length[14:].any()


def test_tube_in_anisotropic_voxels():
    # Radius 5 mm around one point in the middle of voxel (2, 5, 5) of 5 x 2 x 2 mm.
    mask = np.zeros((5, 11, 11), bool)
    fill_tube(mask, np.array([[12.5, 11.0, 11.0]]), [5.0], np.array([5.0, 2.0, 2.0]))
    z, y, x = np.indices(mask.shape)
    squared = (5 * (z - 2)) ** 2 + (2 * (y - 5)) ** 2 + (2 * (x - 5)) ** 2
    np.testing.assert_array_equal(mask, squared <= 25)
    assert mask[1, 5, 5] and mask[2, 5, 7] and not mask[2, 5, 8] and not mask[1, 5, 6]


@pytest.mark.parametrize("seed", range(4))
def test_vessels_are_darker_than_what_is_beside_them(seed):
    image, label, _ = draw_angiogram(np.random.default_rng(seed), (256, 256))
    vessel = label > 0
    beside = binary_dilation(vessel, iterations=6) & ~binary_dilation(vessel, iterations=2) & (image > 20)
    assert image.dtype == np.uint8 and image.shape == (256, 256)
    assert image[vessel & (image > 20)].mean() < image[beside].mean() - 5
    assert 0.015 < vessel.mean() < 0.12
    assert {1, 2} <= set(np.unique(label))


def test_ct_has_tissues_at_their_hounsfield_units():
    image, label, spacing = draw_ct(np.random.default_rng(0), (40, 96, 96))
    medians = [np.median(image[label == value]) for value in (1, 2, 3)]
    assert image.dtype == np.int16
    assert np.median(image[:, :3, :3]) < -950
    assert 80 < medians[0] < medians[1] < 150 < medians[2]
    assert medians[1] - medians[0] < image[label == 1].std() + 10
    assert spacing[0] > 1.3 * max(spacing[1:])


@pytest.mark.parametrize("seed", range(3))
def test_organ_labels_hold_no_bone_and_no_fat(seed):
    image, label, _ = draw_ct(np.random.default_rng(seed), (40, 96, 96))
    inner = binary_erosion(label == 1) | binary_erosion(label == 2)  # away from partial volume
    inner &= ~binary_dilation(label == 3)
    assert inner.sum() > 5000
    assert 0 < image[inner].min() and image[inner].max() < 260


@pytest.mark.parametrize("dim", [2, 3])
def test_same_seed_same_bytes(tmp_path, dim):
    make = dict(dim=dim, num_train=2, num_test=1, size=TINY[dim])
    first = _files(write_phantom_dataset(tmp_path / "a", 1, **make))
    assert first == _files(write_phantom_dataset(tmp_path / "b", 1, **make))
    more = _files(write_phantom_dataset(tmp_path / "c", 1, **make | {"num_train": 3}))
    assert {name: more[name] for name in first if name != "dataset.json"} == {
        name: content for name, content in first.items() if name != "dataset.json"
    }
    other = _files(write_phantom_dataset(tmp_path / "d", 1, **make, seed=1))
    images = [name for name in first if name.startswith("images")]
    assert len(images) == 3 and all(first[name] != other[name] for name in images)
    assert len({first[name] for name in images}) == 3


@pytest.mark.parametrize("dim, ending, reader", [(2, ".png", NaturalImage2DIO()), (3, ".nii.gz", SimpleITKIO())])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("ignore_label", [False, True])
def test_raw_format(tmp_path, dim, ending, reader, regions, ignore_label):
    folder = write_phantom_dataset(
        tmp_path, 7, dim=dim, num_train=2, num_test=1, size=TINY[dim], regions=regions, ignore_label=ignore_label
    )
    assert folder.name == f"Dataset007_Phantom{'XA' if dim == 2 else 'CT'}"
    assert sorted(f.name for f in tmp_path.iterdir()) == [folder.name]
    dataset_json = json.loads((folder / "dataset.json").read_text())
    assert (dataset_json["numTraining"], dataset_json["file_ending"]) == (2, ending)

    manager = LabelManager(dataset_json["labels"], dataset_json.get("regions_class_order"))
    assert manager.has_regions == regions
    assert manager.has_ignore_label == ignore_label
    foreground = {1, 2, 3} if dim == 3 else ({1, 2} if regions else {1})
    assert set(manager.all_labels) == {0} | foreground
    for split, names in (("Tr", ("train_000", "train_001")), ("Ts", ("test_000",))):
        for name in names:
            image, image_properties = reader.read_images([str(folder / f"images{split}" / f"{name}_0000{ending}")])
            label, label_properties = reader.read_seg(str(folder / f"labels{split}" / f"{name}{ending}"))
            assert image.shape == label.shape == (1, *((1,) * (3 - dim)), *TINY[dim])
            np.testing.assert_allclose(image_properties["spacing"], label_properties["spacing"])
            hidden = label == manager.ignore_label if ignore_label else np.zeros_like(label, bool)
            assert hidden.mean() == (0.5**dim if ignore_label and split == "Tr" else 0)
            assert set(np.unique(label[~hidden])) <= {0} | foreground
            if split == "Ts":
                assert set(np.unique(label)) == {0} | foreground


def test_region_labels_contain_the_plain_ones(tmp_path):
    make = dict(num_train=1, num_test=0, size=(64, 64))
    plain = write_phantom_dataset(tmp_path, 1, **make) / "labelsTr" / "train_000.png"
    regions = write_phantom_dataset(tmp_path, 2, regions=True, **make) / "labelsTr" / "train_000.png"
    plain, regions = (NaturalImage2DIO().read_seg(str(f))[0] for f in (plain, regions))
    np.testing.assert_array_equal(plain > 0, regions > 0)


def test_refusals(tmp_path):
    folder = write_phantom_dataset(tmp_path, 5, num_train=1, num_test=0, size=(48, 48))
    before = _files(folder)
    with pytest.raises(BadInput, match="exists already.*another number than 5"):
        write_phantom_dataset(tmp_path, 5, num_train=1)
    assert _files(folder) == before
    for wrong, message in (
        ({"dim": 4}, "dim must be 2 or 3, not 4"),
        ({"size": (64, 64, 64)}, "must be 2 numbers of at least 48"),
        ({"size": (64, 20)}, "must be 2 numbers of at least 48"),
        ({"dataset_id": 1000}, "1 to 999, not 1000"),
        ({"num_train": 0}, "num_train must be at least 1"),
    ):
        with pytest.raises(BadInput, match=message):
            write_phantom_dataset(tmp_path, **{"dataset_id": 6} | wrong)
    assert [f.name for f in tmp_path.iterdir()] == [folder.name]
