"""Phantom data sets in nnU-Net's raw format: computed, so that they may be shipped, shown and shared.

There are two kinds, both drawn from a seed, with exact masks:

* 2D, ``PhantomXA``: coronary angiograms. Attenuation is summed along the beam (body, heart, lung, ribs, diaphragm,
  spine, catheter, contrast medium in a tapering branching tree), blurred, and counted as photons (Beer-Lambert and
  Poisson). The mask is where the beam's pixel centre meets a vessel, within the field of view.
* 3D, ``PhantomCT``: abdominal CT in Hounsfield units with anisotropic voxels. Liver and spleen differ by less than the
  noise, and vessels branch off the aorta into both.

They show that a pipeline works. They say nothing about how well a method does on patients.
"""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from skimage import io
from tqdm import tqdm

from nnunet_skd.tools.demo.angiogram import draw_angiogram
from nnunet_skd.tools.demo.ct import draw_ct
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import new_folder, scratch_folder

DEFAULT_SIZE = {2: (256, 256), 3: (40, 96, 96)}  # pixels (rows, columns); voxels (slices, rows, columns)
SMALLEST_SIZE = {2: 48, 3: 16}


def write_phantom_dataset(
    raw_folder: str | Path,
    dataset_id: int,
    *,
    dim: int = 2,
    num_train: int = 16,
    num_test: int = 8,
    size: tuple[int, ...] | None = None,
    seed: int = 0,
    regions: bool = False,
    ignore_label: bool = False,
) -> Path:
    """Draw a data set into nnU-Net's raw format: imagesTr, labelsTr, imagesTs, labelsTs and dataset.json.

    The same arguments give the same bytes, and case i is the same whatever the number of cases.

    Args:
        raw_folder: the folder that nnUNet_raw names; made if missing.
        dataset_id: 1 to 999; the folder becomes DatasetXXX_PhantomXA (2D) or DatasetXXX_PhantomCT (3D).
        dim: 2 for angiograms (8 bit PNG), 3 for CT (NIfTI, HU).
        num_train: number of training cases.
        num_test: number of test cases, which have labels too (labelsTs).
        size: (rows, columns) or (slices, rows, columns); the anatomy scales with it. None: 256 x 256, 40 x 96 x 96.
        seed: of the random numbers.
        regions: 2D labels become side branches (1) and main vessel (2), dataset.json the overlapping regions tree = 1+2
            and main vessel = 2; 3D has the regions organs and vessels = 1+2+3, spleen = 2, vessel = 3.
        ignore_label: part of each training label is marked to be ignored; test labels stay complete.

    Returns:
        The data set's folder.

    Raises:
        BadInput: wrong dim, size or number; or raw_folder holds a data set of this number already.
    """
    _check(dim, size, dataset_id, num_train, num_test)
    raw_folder = Path(raw_folder)
    taken = sorted(raw_folder.glob(f"Dataset{dataset_id:03d}_*"))
    if taken:
        raise BadInput(f"{taken[0]} exists already. Choose another number than {dataset_id}, or remove that folder.")
    size = tuple(size or DEFAULT_SIZE[dim])
    draw, ending = (draw_angiogram, ".png") if dim == 2 else (draw_ct, ".nii.gz")
    labels = _labels(dim, regions, ignore_label)

    target = raw_folder / f"Dataset{dataset_id:03d}_Phantom{'XA' if dim == 2 else 'CT'}"
    with new_folder(target) as folder:
        cases = [("Tr", i) for i in range(num_train)] + [("Ts", i) for i in range(num_test)]
        for split, index in tqdm(cases, desc="drawing phantoms", unit="case"):
            rng = np.random.default_rng([seed, dim, split == "Ts", index])
            image, label, spacing = draw(rng, size)
            if dim == 2 and not regions:
                label = np.minimum(label, 1)
            if ignore_label and split == "Tr":
                _hide_part(rng, label, ignore_value=labels["ignore"])
            case = f"{'train' if split == 'Tr' else 'test'}_{index:03d}"
            _save(folder / f"images{split}" / f"{case}_0000{ending}", image, spacing)
            _save(folder / f"labels{split}" / f"{case}{ending}", label, spacing)
        generate_dataset_json(
            str(folder),
            {0: "XA" if dim == 2 else "CT"},
            labels,
            num_train,
            ending,
            regions_class_order=tuple(range(1, dim + 1)) if regions else None,
            dataset_name=target.name,
            description=f"Phantoms drawn by nnunet_skd, seed {seed}. Not patients.",
            license="CC0-1.0",
            converted_by="nnunet_skd",
        )
    return target


def write_partly_labelled_phantoms(
    raw_folder: str | Path, images_folder: str | Path, dataset_id: int, labelled: int, **options: int | tuple[int, ...]
) -> Path:
    """As :func:`write_phantom_dataset`, but only the first training cases are labelled.

    Args:
        images_folder: gets the images of the other training cases, in nnU-Net's naming.
        labelled: number of training cases that stay in the data set.
        options: of :func:`write_phantom_dataset`.

    Raises:
        BadInput: as :func:`write_phantom_dataset`, or ``images_folder`` exists and is not empty.
    """
    with scratch_folder(Path(raw_folder)) as scratch, new_folder(Path(images_folder)) as images:
        drawn = write_phantom_dataset(scratch, dataset_id, **options)
        for label in sorted((drawn / "labelsTr").iterdir())[labelled:]:
            ending = "".join(label.suffixes)
            image = drawn / "imagesTr" / f"{label.name.removesuffix(ending)}_0000{ending}"
            image.rename(images / image.name)
            label.unlink()
        description = json.loads((drawn / "dataset.json").read_text(encoding="utf-8")) | {"numTraining": labelled}
        (drawn / "dataset.json").write_text(json.dumps(description, indent=4), encoding="utf-8")
        target = Path(raw_folder) / drawn.name
        drawn.rename(target)
    return target


def _check(dim: int, size: tuple[int, ...] | None, dataset_id: int, num_train: int, num_test: int) -> None:
    if dim not in DEFAULT_SIZE:
        raise BadInput(f"dim must be 2 or 3, not {dim}.")
    if size is not None and (len(size) != dim or min(size) < SMALLEST_SIZE[dim]):
        raise BadInput(f"size {tuple(size)} must be {dim} numbers of at least {SMALLEST_SIZE[dim]} for dim {dim}.")
    if not 1 <= dataset_id <= 999:
        raise BadInput(f"dataset_id must be 1 to 999, not {dataset_id}.")
    if num_train < 1 or num_test < 0:
        raise BadInput(f"num_train must be at least 1 and num_test at least 0, not {num_train} and {num_test}.")


def _labels(dim: int, regions: bool, ignore_label: bool) -> dict[str, int | tuple[int, ...]]:
    if dim == 2:
        labels = {"tree": (1, 2), "main vessel": (2,)} if regions else {"vessel": 1}
        highest = 2 if regions else 1
    else:
        labels = {"organs and vessels": (1, 2, 3), "spleen": (2,), "vessel": (3,)}
        labels = labels if regions else {"liver": 1, "spleen": 2, "vessel": 3}
        highest = 3
    return {"background": 0} | labels | ({"ignore": highest + 1} if ignore_label else {})


def _hide_part(rng: np.random.Generator, label: np.ndarray, ignore_value: int) -> None:
    """Mark one box of half the edge length (a quarter of the area, an eighth of the volume) as not annotated."""
    starts = [rng.integers(0, n - n // 2 + 1) for n in label.shape]
    label[tuple(slice(start, start + n // 2) for start, n in zip(starts, label.shape, strict=True))] = ignore_value


def _save(path: Path, array: np.ndarray, spacing: tuple[float, ...]) -> None:
    path.parent.mkdir(exist_ok=True)
    if array.ndim == 2:
        io.imsave(path, array, check_contrast=False)
    else:  # NIfTI stores x, y, z; the patient lies on the back, x to the patient's left, y to the back, z to the head
        affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
        nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), affine), path)
