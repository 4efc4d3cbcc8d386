"""Small plans, trainers and batches, without images: what the trainer's tests stand on."""

import json
import os
from pathlib import Path

import torch

from nnunet_skd.trainers.nnUNetTrainerACWSKD import nnUNetTrainerACWSKD
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD
from nnunet_skd.trainers.nnUNetTrainerDSKD_ACW import nnUNetTrainerDSKD_ACW

DATASET = "Dataset900_Toy"


FAMILIES = (nnUNetTrainerDSKD, nnUNetTrainerACWSKD, nnUNetTrainerDSKD_ACW)


def toy_plans(dim: int = 2, *, stages: int = 3, residual: bool = False, patch: int = 32, batch_size: int = 2) -> dict:
    """nnU-Net plans of one configuration: ``2d`` or ``3d_fullres``."""
    blocks = {"n_blocks_per_stage": [1] * stages} if residual else {"n_conv_per_stage": [1] * stages}
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet."
        + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [4 * 2**i for i in range(stages)],
            "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
            "kernel_sizes": [[3] * dim] * stages,
            "strides": [[1] * dim] + [[2] * dim] * (stages - 1),
            **blocks,
            "n_conv_per_stage_decoder": [1] * (stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "data_identifier": f"nnUNetPlans_{dim}d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": batch_size,
        "patch_size": [patch] * dim,
        "median_image_size_in_voxels": [float(patch)] * dim,
        "spacing": [1.0] * dim,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
        "architecture": architecture,
        "batch_dice": False,
    }
    return {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [patch] * 3,
        "image_reader_writer": "NibabelIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"2d" if dim == 2 else "3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {"mean": 0.0, "std": 1.0}},
    }


def toy_dataset_json(*, regions: bool = False, ignore: bool = False) -> dict:
    """Background and two classes, or two nested regions; the ignore label is 3."""
    labels = {"background": 0, "whole": [1, 2], "core": 2} if regions else {"background": 0, "a": 1, "b": 2}
    if ignore:
        labels["ignore"] = 3
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
    return dataset | ({"regions_class_order": [1, 2]} if regions else {})


def make_trainer(
    trainer_class: type,
    *,
    dim: int = 2,
    regions: bool = False,
    ignore: bool = False,
    cascade: bool = False,
    seed: int = 0,
    device: str = "cpu",
    **plans,
):
    """A trainer, not yet initialised. Needs the fixture ``nnunet_env``."""
    plans = toy_plans(dim, **plans) | {"continue_training": False}
    folder = Path(os.environ["nnUNet_preprocessed"], DATASET)
    data_folder = folder / f"nnUNetPlans_{dim}d"
    data_folder.mkdir(parents=True, exist_ok=True)
    (data_folder / "case.b2nd").touch()  # nnU-Net infers its data format from the file endings
    (folder / "dataset_fingerprint.json").write_text(json.dumps({}))
    torch.manual_seed(seed)
    configuration = "2d" if dim == 2 else "3d_fullres"
    if cascade:
        plans["configurations"]["3d_lowres"] = {"inherits_from": "3d_fullres", "next_stage": "3d_cascade_fullres"}
        plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
        configuration = "3d_cascade_fullres"
    dataset_json = toy_dataset_json(regions=regions, ignore=ignore)
    return trainer_class(plans, configuration, 0, dataset_json, torch.device(device))


def initialized(trainer_class: type, *, stages: int = 4, **kind):
    """An initialised trainer; four stages are enough for every term of this package."""
    trainer = make_trainer(trainer_class, stages=stages, **kind)
    trainer.initialize()
    return trainer


def save_as_of_this_epoch(trainer, file) -> str:
    """After run_epoch, which counts the epoch up; nnU-Net saves just before."""
    trainer.current_epoch -= 1
    trainer.save_checkpoint(str(file))
    trainer.current_epoch += 1
    return str(file)


def everything(trainer) -> dict[str, torch.Tensor]:
    """Copies of the network's weights and of what the terms have of their own."""
    state = dict(trainer.network.state_dict())
    if hasattr(trainer.loss, "terms"):
        state |= {f"terms.{name}": value for name, value in trainer.loss.terms.state_dict().items()}
    return {name: value.detach().clone() for name, value in state.items()}


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def make_batch(trainer, seed: int = 0) -> dict:
    """Random images, and targets at every output's resolution as nnU-Net's transforms make them."""
    generator = torch.Generator().manual_seed(seed)
    size = trainer.configuration_manager.patch_size
    manager = trainer.label_manager
    labels = 4 if manager.ignore_label is not None else 3
    label_map = torch.randint(0, labels, (trainer.batch_size, 1, *size), generator=generator)
    data = torch.randn(trainer.batch_size, trainer.num_input_channels, *size, generator=generator) + label_map
    if manager.has_regions:
        regions = [torch.isin(label_map, torch.tensor(region)) for region in ([1, 2], [2])]
        if manager.ignore_label is not None:
            regions.append(label_map == manager.ignore_label)
        label_map = torch.cat(regions, 1)
    target = []
    for scale in trainer._get_deep_supervision_scales():
        step = [round(1 / s) for s in scale]
        target.append(label_map[(..., *(slice(None, None, s) for s in step))].contiguous())
    return {"data": data, "target": target}


def start_epoch(trainer, epoch: int):
    """Bring an initialised trainer to the start of an epoch, without dataloaders."""
    if getattr(trainer, "teacher", None) is not None and trainer.dataloader_train is None:
        trainer.dataloader_train = "none needed"
        trainer.teacher.attach(trainer)
    trainer.current_epoch = epoch
    trainer.logger.get_checkpoint()["lrs"] = [trainer.initial_lr] * epoch
    trainer.on_train_epoch_start()


def run_epoch(trainer, epoch: int, steps: int = 3, *, plot: bool = False):
    """One whole epoch with nnU-Net's own hooks in the order of run_training, on toy batches.

    ``plot``: whether distillation.png is drawn, which takes longer than the rest.
    """
    if trainer.dataloader_train is None:
        trainer.get_dataloaders = lambda: ("none needed", None)
        trainer.logger.plot_progress_png = lambda folder: None  # slow, and nnU-Net's own
        trainer.dataset_class.unpack_dataset = lambda *args, **kwargs: None
        trainer.on_train_start()
        if not plot and hasattr(trainer, "distillation_log"):
            trainer.distillation_log.plot = lambda: None
    assert trainer.current_epoch == epoch
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    trainer.on_train_epoch_end([trainer.train_step(make_batch(trainer, 10 * epoch + step)) for step in range(steps)])
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        trainer.on_validation_epoch_end([trainer.validation_step(make_batch(trainer, 1000 + epoch))])
    trainer.on_epoch_end()
