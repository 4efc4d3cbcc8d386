"""DCA1: 134 X-ray coronary angiograms with vessel masks.

  nnunet-skd convert dca1 DB_Angiograms_134.zip -d 82
  nnunet-skd convert dca1 Database_134_Angiograms -d 82 --name DCA1

Expected: 1.pgm, 1_gt.pgm ... 134.pgm, 134_gt.pgm, in any folder of the source.
Labels: background 0, vessel 1. One grey channel.
Split: images 1-100 train, 101-134 are the held-out part, as is usual in the field. (The paper's abstract speaks of
130 images, 100 for training and 30 for testing; the archive's page does not name a split.)
Reference: Cervantes-Sanchez et al., Applied Sciences 9(24):5507, 2019, doi 10.3390/app9245507.
Licence: the authors' page asks for the citation; we found no licence text.
"""

from functools import partial

from nnunet_skd.tools.convert.common import Case, Files, Found, index, paired, require_any
from nnunet_skd.tools.convert.vessels import add_threshold, write_vessels

NAME = "DCA1"
PUBLISHED = 134
TRAIN = 100
add_arguments = add_threshold


def find(files: Files, threshold: int | None = None) -> Found:
    """Pair ``N.pgm`` with ``N_gt.pgm``."""
    problems = []
    images = index(files, r"0*(\d+)\.pgm", problems)
    masks = index(files, r"0*(\d+)_gt\.pgm", problems)
    keys = paired(images, masks, problems)
    require_any(keys, files, "N.pgm with N_gt.pgm, N = 1 to 134")
    numbers = set(images) | set(masks)
    absent = [str(n) for n in range(1, PUBLISHED + 1) if str(n) not in numbers]
    problems.extend(f"{n}.pgm and {n}_gt.pgm: missing" for n in absent)
    problems.extend(f"{key}.pgm: not one of the {PUBLISHED} published images" for key in keys if int(key) > PUBLISHED)
    cases = [
        Case(
            f"dca1_{int(key):03d}",
            "train" if int(key) <= TRAIN else "test",
            partial(write_vessels, images[key], masks[key], threshold),
        )
        for key in keys
        if int(key) <= PUBLISHED
    ]
    return Found(
        cases=cases,
        labels={"background": 0, "vessel": 1},
        channel_names={"0": "angiogram"},
        file_ending=".png",
        configuration="2d",
        reference="Cervantes-Sanchez et al., Automatic segmentation of coronary arteries in X-ray angiograms using "
        "multiscale analysis and artificial neural networks, Applied Sciences 9(24):5507, 2019, "
        "https://doi.org/10.3390/app9245507",
        licence="unknown; the authors ask for the citation",
        description="DCA1: X-ray coronary angiograms and vessel masks; split 1-100 / 101-134",
        problems=problems,
        test_validates=True,
        resolved="mask pixels were neither black nor white and went by --threshold",
    )
