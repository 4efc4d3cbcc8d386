"""Synapse multi-organ CT as TransUNet's authors preprocessed it: 8 organs, 18 cases to train, 12 to test.

  nnunet-skd convert synapse project_TransUNet.zip -d 87
  nnunet-skd convert synapse data/Synapse -d 87

Expected: train_npz/case0005_slice000.npz ... (arrays image and label, one slice each) and test_vol_h5/case0001.npy.h5
(the same two arrays, one volume each). Reading h5 needs h5py: pip install "nnunet_skd[convert]".
The slices are stacked in the order of their numbers. The files hold no geometry: spacing and orientation are UNKNOWN,
the spacing is written as 1, 1, 1 mm. Train 2D networks on this version; distances in mm have no meaning. For 3D,
and for the other five organs, take the original NIfTI files: nnunet-skd convert btcv.
The authors clipped intensities to [-125, 275] HU and scaled them to about [0, 1]; they stay as they are.
Labels, in the order of TransUNet's result tables: aorta 1, gallbladder 2, left kidney 3, right kidney 4, liver 5,
pancreas 6, spleen 7, stomach 8. There are copies by others in which the numbers mean other organs, and nothing in the
files says so: check one case before you rely on the names.
Split: train_npz and test_vol_h5 become fold 0 of splits_final.json.
Reference: Chen et al., TransUNet, arXiv 2102.04306; data of Landman et al., MICCAI 2015 multi-atlas labeling challenge
(BTCV), Synapse syn3193805. Licence: the terms of the Synapse project, which needs registration.
"""

from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np

from nnunet_skd.tools.convert.common import BadCase, Case, Files, Found, Written, index, numbered, require_any
from nnunet_skd.tools.convert.pixels import write_volume
from nnunet_skd.tools.convert.transunet_split import TEST, TRAIN
from nnunet_skd.tools.errors import BadInput

NAME = "SynapseTransUNet"
LABELS = numbered("aorta gallbladder left_kidney right_kidney liver pancreas spleen stomach".split())


def find(files: Files) -> Found:
    """Group the slices by case; one case per h5 file."""
    problems = []
    slices = index(files, r"train_npz/case(\d+)_slice(\d+)\.npz", problems)
    volumes = index(files, r"test_vol_h5/case(\d+)\.npy\.h5", problems)
    require_any(slices or volumes, files, "train_npz/case0005_slice000.npz and test_vol_h5/case0001.npy.h5")
    if volumes:
        _h5py()
    stacks: dict[int, dict[int, Path]] = {}
    for (case, number), path in slices.items():
        stacks.setdefault(int(case), {})[int(number)] = path
    cases = []
    for case, stack in sorted(stacks.items()):
        gaps = [f"case{case:04d}_slice{n:03d}.npz" for n in range(max(stack)) if n not in stack]
        problems.extend(f"{name}: missing" for name in gaps)
        if not gaps:
            ordered = [stack[number] for number in sorted(stack)]
            cases.append(Case(f"case{case:04d}", "train", partial(_write_slices, ordered)))
    for key, path in volumes.items():
        if int(key) in stacks:
            problems.append(f"{path.name}: this case is also in train_npz")
        else:
            cases.append(Case(f"case{int(key):04d}", "test", partial(_write_h5, path)))
    problems.extend(f"case{n:04d}: no slice of it in train_npz" for n in sorted(TRAIN - set(stacks)))
    problems.extend(f"case{n:04d}.npy.h5: missing" for n in sorted(TEST - {int(key) for key in volumes}))
    return Found(
        cases=cases,
        labels=dict(LABELS),
        # one fixed window for all cases, so that nnU-Net's CT scheme (statistics of the whole data set) fits
        channel_names={"0": "CT"},
        file_ending=".nii.gz",
        configuration="2d",
        reference="Chen et al., TransUNet: Transformers make strong encoders for medical image segmentation, "
        "arXiv:2102.04306; Landman et al., Multi-atlas labeling beyond the cranial vault, MICCAI 2015, "
        "https://doi.org/10.7303/syn3193805",
        licence="terms of use of the Synapse project syn3193805 (registration)",
        description="Synapse multi-organ CT, TransUNet's preprocessing. Spacing and orientation are unknown; 1,1,1 is "
        "a placeholder",
        problems=problems,
        test_validates=True,
        notes=[
            "spacing and orientation are not in these files: 1, 1, 1 mm is a placeholder. Use 2D networks",
            "label numbers follow TransUNet's tables; check one case before you rely on the organ names",
        ],
    )


def _h5py() -> ModuleType:
    """h5py, which only this data set needs."""
    try:
        import h5py
    except ImportError as error:
        raise BadInput(
            'the .npy.h5 files of this data set need h5py: pip install "nnunet_skd[convert]" (or pip install h5py)'
        ) from error
    return h5py


def _write_slices(paths: list[Path], image_path: Path, label_path: Path) -> Written:
    images, labels = [], []
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                images.append(arrays["image"])
                labels.append(arrays["label"])
        except Exception as error:  # a damaged file fails in as many ways as it can be damaged
            raise BadCase(f"{path.name} is damaged, or the arrays image and label are not in it ({error})") from error
        if images[-1].shape != images[0].shape or labels[-1].shape != images[0].shape or images[0].ndim != 2:
            raise BadCase(
                f"{path.name}: image {images[-1].shape}, label {labels[-1].shape}; not the first slice's size"
            )
    return write_volume(np.stack(images), np.stack(labels), LABELS, image_path, label_path)


def _write_h5(path: Path, image_path: Path, label_path: Path) -> Written:
    try:
        with _h5py().File(path, "r") as arrays:
            image, labels = arrays["image"][()], arrays["label"][()]
    except Exception as error:  # a damaged file fails in as many ways as it can be damaged
        raise BadCase(f"{path.name} is damaged, or the arrays image and label are not in it ({error})") from error
    return write_volume(image, labels, LABELS, image_path, label_path)
