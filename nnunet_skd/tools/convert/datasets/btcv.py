"""Synapse / BTCV abdomen, the original NIfTI files: 30 labelled CT scans, 13 organs.

  nnunet-skd convert btcv RawData.zip -d 88
  nnunet-skd convert btcv Abdomen/RawData -d 88

Expected: Training/img/img0001.nii.gz with Training/label/label0001.nii.gz, numbers 1-10 and 21-40. The scans under
Testing have no reference and are left out. (The folders averaged-training-images and -labels of the same Synapse
project hold other files, named like DET0000101_avg, whose numbers are not these cases'; they are not read.)
Labels: spleen 1, right kidney 2, left kidney 3, gallbladder 4, esophagus 5, liver 6, stomach 7, aorta 8, inferior vena
cava 9, portal and splenic vein 10, pancreas 11, right adrenal gland 12, left adrenal gland 13. Spacing from the files.
Split: the challenge keeps the reference of its test scans; TransUNet's 18 / 12 cases of the labelled ones, which the
literature compares on, become fold 0 of splits_final.json.
Reference: Landman et al., MICCAI 2015 multi-atlas labeling beyond the cranial vault, Synapse syn3193805.
Licence: the terms of the Synapse project, which needs registration.
"""

from functools import partial

from nnunet_skd.tools.convert.common import Case, Files, Found, index, numbered, paired, require_any
from nnunet_skd.tools.convert.pixels import write_nifti
from nnunet_skd.tools.convert.transunet_split import TEST, TRAIN

NAME = "BTCV"
ORGANS = (
    "spleen right_kidney left_kidney gallbladder esophagus liver stomach aorta inferior_vena_cava "
    "portal_and_splenic_vein pancreas right_adrenal_gland left_adrenal_gland"
).split()
LABELS = numbered(ORGANS)


def find(files: Files) -> Found:
    """Pair ``imgNNNN`` with ``labelNNNN``."""
    problems = []
    files = {path: where for path, where in files.items() if "Testing/" not in path}
    images = index(files, r"img0*(\d+)\.nii(?:\.gz)?", problems)
    references = index(files, r"label0*(\d+)\.nii(?:\.gz)?", problems)
    keys = paired(images, references, problems)
    require_any(keys, files, "Training/img/img0001.nii.gz with Training/label/label0001.nii.gz")
    numbers = {int(key) for key in set(images) | set(references)}
    problems.extend(f"img{n:04d} and label{n:04d}: missing" for n in sorted((TRAIN | TEST) - numbers))
    problems.extend(f"img{n:04d}: not one of the 30 published cases" for n in sorted(numbers - TRAIN - TEST))
    cases = [
        Case(
            f"btcv_{int(key):04d}",
            "test" if int(key) in TEST else "train",
            partial(write_nifti, images[key], references[key], LABELS),
        )
        for key in keys
        if int(key) in TRAIN | TEST
    ]
    return Found(
        cases=cases,
        labels=dict(LABELS),
        channel_names={"0": "CT"},
        file_ending=".nii.gz",
        configuration="3d_fullres",
        reference="Landman et al., Multi-atlas labeling beyond the cranial vault, MICCAI 2015, "
        "https://doi.org/10.7303/syn3193805",
        licence="terms of use of the Synapse project syn3193805 (registration)",
        description="BTCV abdomen: labelled CT scans, 13 organs; split of TransUNet (18 / 12)",
        problems=problems,
        test_validates=True,
    )
