"""FLARE22: the 50 labelled abdominal CT scans, 13 organs.

  nnunet-skd convert flare22 FLARE22_LabeledCase50.zip -d 89
  nnunet-skd convert flare22 images.zip labels.zip -d 89

Expected: images/FLARE22_Tr_0001_0000.nii.gz with labels/FLARE22_Tr_0001.nii.gz, numbers 1 to 50.
Labels: liver 1, right kidney 2, spleen 3, pancreas 4, aorta 5, inferior vena cava 6, right adrenal gland 7, left
adrenal gland 8, gallbladder 9, esophagus 10, stomach 11, duodenum 12, left kidney 13. Spacing from the files.
Split: the challenge has none within these 50. Fold 0 of splits_final.json has the 40 / 10 of the mmseg-kd and DPC-Net
repositories (test: 10, 14, 15, 18, 20, 24, 28, 40, 46, 49); the split of ACW-SKD itself is unknown.
Reference: Ma et al., the FLARE22 challenge, Lancet Digital Health 2024; scans of the Medical Segmentation Decathlon
(pancreas), annotations of AbdomenCT-1K. Licence: unknown; the scans' is CC BY-SA 4.0.
"""

from functools import partial

from nnunet_skd.tools.convert.common import Case, Files, Found, index, numbered, paired, require_any
from nnunet_skd.tools.convert.pixels import write_nifti

NAME = "FLARE22"
PUBLISHED = 50
TEST = {10, 14, 15, 18, 20, 24, 28, 40, 46, 49}
ORGANS = (
    "liver right_kidney spleen pancreas aorta inferior_vena_cava right_adrenal_gland left_adrenal_gland gallbladder "
    "esophagus stomach duodenum left_kidney"
).split()
LABELS = numbered(ORGANS)


def find(files: Files) -> Found:
    """Pair ``FLARE22_Tr_NNNN_0000`` with ``FLARE22_Tr_NNNN``."""
    problems = []
    images = index(files, r"FLARE22_Tr_(\d{4})_0000\.nii(?:\.gz)?", problems)
    references = index(files, r"FLARE22_Tr_(\d{4})\.nii(?:\.gz)?", problems)
    keys = paired(images, references, problems)
    require_any(keys, files, "images/FLARE22_Tr_0001_0000.nii.gz with labels/FLARE22_Tr_0001.nii.gz")
    numbers = {int(key) for key in set(images) | set(references)}
    problems.extend(f"FLARE22_Tr_{n:04d}: missing" for n in range(1, PUBLISHED + 1) if n not in numbers)
    cases = [
        Case(
            f"FLARE22_Tr_{key}",
            "test" if int(key) in TEST else "train",
            partial(write_nifti, images[key], references[key], LABELS),
        )
        for key in keys
    ]
    return Found(
        cases=cases,
        labels=dict(LABELS),
        channel_names={"0": "CT"},
        file_ending=".nii.gz",
        configuration="3d_fullres",
        reference="Ma et al., Unleashing the strengths of unlabelled data in deep learning-assisted pan-cancer "
        "abdominal organ quantification: the FLARE22 challenge, Lancet Digital Health 2024; Antonelli et al., The "
        "Medical Segmentation Decathlon, 2022; Ma et al., AbdomenCT-1K, IEEE TPAMI 2022; https://flare22.grand-challenge.org",
        licence="unknown; the scans come from the Medical Segmentation Decathlon (CC BY-SA 4.0)",
        description="FLARE22, labelled part: abdominal CT, 13 organs; split 40 / 10 of mmseg-kd and DPC-Net",
        problems=problems,
        test_validates=True,
    )
