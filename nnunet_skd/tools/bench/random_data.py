"""Random batches and cases in the shape of a dataset's plans."""

from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor
from torch.utils.data import default_collate


def random_batch(trainer: nnUNetTrainer, batch_size: int | None = None) -> dict[str, Any]:
    """A batch as nnU-Net's loader gives it: noise, and labels drawn anew for each voxel.

    The trainer's own validation transforms make regions, one-hot channels of a cascade and the lower resolutions.

    Args:
        batch_size: None is the trainer's.

    Returns:
        `data`: `B, C, spatial`, float32; `target`: a list over the resolutions, or one tensor without deep supervision.
    """
    manager = trainer.label_manager
    transforms = trainer.get_validation_transforms(
        trainer._get_deep_supervision_scales(),
        is_cascaded=trainer.is_cascaded,
        foreground_labels=manager.foreground_labels,
        regions=manager.foreground_regions if manager.has_regions else None,
        ignore_label=manager.ignore_label,
    )
    patch = tuple(trainer.configuration_manager.patch_size)
    ignored = [manager.ignore_label] if manager.has_ignore_label else []
    labels = torch.tensor([*manager.all_labels, *ignored], dtype=torch.int16)
    images = trainer.num_input_channels
    if trainer.is_cascaded:
        images -= len(manager.foreground_labels)
    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(batch_size or trainer.batch_size):
        drawn = torch.randint(len(labels), (1 + trainer.is_cascaded, *patch), generator=generator)
        image = torch.randn(images, *patch, generator=generator)
        samples.append(transforms(image=image, segmentation=labels[drawn]))
    batch = default_collate(samples)
    data, target = batch["image"], batch["segmentation"]
    if trainer.device.type == "cuda":
        data = data.pin_memory()
        target = [t.pin_memory() for t in target] if isinstance(target, list) else target.pin_memory()
    return {"data": data, "target": target}


def random_case(trainer: nnUNetTrainer) -> Tensor:
    """Noise in the shape of the plans' median case after preprocessing: `C, z, y, x` (2D: z slices)."""
    shape = [int(n) for n in trainer.configuration_manager.median_image_size_in_voxels]
    if len(shape) == 2:
        shape = [int(trainer.plans_manager.original_median_shape_after_transp[0]), *shape]
    return torch.randn(trainer.num_input_channels, *shape, generator=torch.Generator().manual_seed(0))
