"""Tiny preprocessed images beside a toy trainer, with labels and without, so that nnU-Net's own loaders have work."""

import json
from pathlib import Path

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_skd.unlabelled_data import preprocessing, record_file, unlabelled_folder

LABELLED = tuple(f"labelled_{i}" for i in range(5))
UNLABELLED = ("plain_0", "plain_1", "plain_2")


def save_case(folder: Path, case: str, shape: tuple[int, ...], labels: int, ignore: int | None, level: float) -> None:
    """``labels``: how many the segmentation holds, 0: an image without labels. ``level``: mean intensity."""
    if (folder / f"{case}.pkl").is_file():  # of another trainer in this test
        return
    rng = np.random.default_rng(sum(map(ord, case)))
    segmentation = rng.integers(0, max(labels, 1), shape).astype(np.int16)
    if labels and ignore is not None:
        segmentation[..., shape[-1] // 2 :] = ignore
    locations = {k: np.argwhere(segmentation == k) for k in range(1, labels)}
    annotated = tuple([-1, *range(labels)])
    locations[annotated] = np.argwhere(np.isin(segmentation, annotated)) if labels else []
    data = rng.normal(level, 1, shape).astype(np.float32) + segmentation
    nnUNetDatasetBlosc2.save_case(data, segmentation, {"class_locations": locations}, str(folder / case), shape, shape)


def with_data(trainer, *, size: int = 40, unlabelled: tuple[str, ...] = UNLABELLED, level: float = 0.0):
    """The trainer of ``toy.make_trainer``, with five labelled cases, a split, and images without labels."""
    configuration = trainer.configuration_manager
    dim = len(configuration.patch_size)
    shape = (1, *((1,) if dim == 2 else ()), *(size,) * dim)
    labelled = Path(trainer.preprocessed_dataset_folder)
    (labelled / "case.b2nd").unlink(missing_ok=True)  # of make_trainer
    for case in LABELLED:
        save_case(labelled, case, shape, 3, trainer.label_manager.ignore_label, 0.0)
    splits = [{"train": [c for c in LABELLED if c != held_out], "val": [held_out]} for held_out in LABELLED]
    (labelled.parent / "splits_final.json").write_text(json.dumps(splits))
    if unlabelled:
        folder = unlabelled_folder(trainer.plans_manager, trainer.configuration_name)
        folder.mkdir(parents=True, exist_ok=True)
        for case in unlabelled:
            save_case(folder, case, shape, 0, None, level)
        entry = {"images": ["/images/a_0000.png"], "stamps": [], "content": "", "made": "now"}
        record = {
            "preprocessing": preprocessing(trainer.plans_manager, trainer.configuration_name),
            "cases": dict.fromkeys(unlabelled, entry),
        }
        record_file(folder).write_text(json.dumps(record))
    trainer.plot_network_architecture = lambda: None  # slow, and nnU-Net's own
    trainer.logger.plot_progress_png = lambda folder: None
    return trainer
