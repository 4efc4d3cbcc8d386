"""Models as nnU-Net leaves them behind, made without training, and students that they teach."""

import json
import os
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from toy import make_trainer, toy_dataset_json, toy_plans
from toy_data import LABELLED, with_data

from nnunet_skd.model_checks import VARIABLE
from nnunet_skd.trainers.nnUNetTrainerDistill import nnUNetTrainerDistill
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD


def trained_model(
    trainer_class=nnUNetTrainerDSKD, *, folds=("0",), checkpoint="checkpoint_final.pth", dim=2, regions=False, **plans
) -> Path:
    """A model folder as nnU-Net leaves it behind, made without training. Needs the fixture ``nnunet_env``."""
    trainer = make_trainer(trainer_class, dim=dim, regions=regions, **plans)
    trainer.initialize()
    trainer.inference_allowed_mirroring_axes = tuple(range(dim))
    trainer._best_ema = np.float64(0.5)
    trainer.logger.get_checkpoint()["mean_fg_dice"] = [np.float32(0.25), np.float64(0.5)]
    folder = Path(trainer.output_folder_base)
    for fold in folds:
        for parameter in trainer.network.parameters():
            parameter.grad = torch.randn_like(parameter)
        trainer.optimizer.step()  # gives the optimizer its state, and each fold its weights
        file = folder / f"fold_{fold}" / checkpoint
        file.parent.mkdir(exist_ok=True)
        trainer.save_checkpoint(str(file))
        torch.save(torch.load(file, weights_only=False) | {"distillation": {"frm": torch.ones(10000)}}, file)
    (folder / "plans.json").write_text(json.dumps(toy_plans(dim, **plans)))
    (folder / "dataset.json").write_text(json.dumps(toy_dataset_json(regions=regions)))
    (folder / "dataset_fingerprint.json").write_text("{}")
    return folder


class nnUNetTrainerDistill_brief(nnUNetTrainerDistill):
    def initialize(self):
        self.num_epochs = 4
        super().initialize()


def finish(trainer_class=nnUNetTrainer, folds=(0,), *, seed=1, **kind) -> Path:
    """A folder as nnUNetv2_train leaves it: toy networks of random weights, and what was validated."""
    for fold in folds:
        trainer = make_trainer(trainer_class, seed=seed, **kind)
        trainer.fold = fold
        trainer.output_folder = os.path.join(trainer.output_folder_base, f"fold_{fold}")
        Path(trainer.output_folder, "validation").mkdir(parents=True, exist_ok=True)
        trainer.initialize()
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        trainer.save_checkpoint(os.path.join(trainer.output_folder, "checkpoint_final.pth"))
        Path(trainer.output_folder, "debug.json").write_text(
            json.dumps({"enable_deep_supervision": str(trainer.enable_deep_supervision)})
        )
        for case in LABELLED if fold == "all" else LABELLED[fold : fold + 1]:
            Path(trainer.output_folder, "validation", f"{case}.nii.gz").touch()
        seed += 1
    folder = Path(trainer.output_folder_base)
    (folder / "plans.json").write_text(json.dumps(trainer.plans_manager.plans))
    (folder / "dataset.json").write_text(json.dumps(trainer.dataset_json))
    return folder


def student(*folders, fold=0, trainer_class=nnUNetTrainerDistill_brief, unlabelled=(), monkeypatch=None, **kind):
    """A trainer that the models of these folders are to teach."""
    trainer = with_data(make_trainer(trainer_class, **kind), unlabelled=unlabelled)
    trainer.fold = fold
    if monkeypatch is not None:
        monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, folders)))
    trainer.initialize()
    return trainer


def taught(*folders, monkeypatch, compiled=False, **kind):
    """A student whose teachers were checked and loaded."""
    trainer = student(*folders, monkeypatch=monkeypatch, **kind)
    trainer._do_i_compile = lambda: compiled
    trainer.inference_allowed_mirroring_axes = None
    trainer.teacher.check(trainer)
    trainer.teacher.attach(trainer)
    return trainer
