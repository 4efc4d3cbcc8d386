"""What holds with every nnU-Net that this package works with: these tests run in an environment for each."""

import os
from pathlib import Path

import pytest
import torch
from toy import FAMILIES, make_trainer, run_epoch

from nnunet_skd import compat
from nnunet_skd.tools.install.discovery import trainers_folder
from nnunet_skd.trainer import SelfDistillationTrainer


def test_an_older_release_is_older():
    assert compat.is_too_old("2.5.2") and compat.is_too_old("2.6.3") and compat.is_too_old("2.6")
    assert not any(compat.is_too_old(release) for release in (*compat.TESTED, "2.10.0", "2.8.2.dev0", "3.0"))
    assert compat.TESTED == tuple(sorted(compat.TESTED)) and compat.TESTED[0] == compat.OLDEST


def test_too_old_a_release_is_refused_in_one_line_before_an_import_fails(monkeypatch):
    monkeypatch.setattr(compat, "nnunet_version", lambda: "2.5.2")
    with pytest.raises(ImportError, match="nnunetv2 2.5.2 is too old for nnunet_skd, which needs 2.6.4 or later: pip"):
        compat.require_supported_nnunet()


def test_this_environment_holds_a_tested_nnunet():
    assert compat.nnunet_version() in compat.TESTED


@pytest.mark.parametrize("trainer_class", FAMILIES, ids=lambda c: c.__name__)
def test_a_training_is_continued_from_its_checkpoint(nnunet_env, trainer_class):
    """Two epochs in one go, and one epoch, a checkpoint, another trainer and the second epoch: the same network."""
    trainers = [make_trainer(trainer_class, stages=4) for _ in range(2)]
    for trainer in trainers:
        trainer.initialize()
    trainers[1].network.load_state_dict(trainers[0].network.state_dict())
    for epoch in range(2):
        torch.manual_seed(epoch)
        run_epoch(trainers[0], epoch)
        if epoch == 0:
            trainers[0].current_epoch -= 1  # nnU-Net saves before it counts
            trainers[0].save_checkpoint(str(nnunet_env / "checkpoint.pth"))
            trainers[0].current_epoch += 1
    trainers[1].load_checkpoint(str(nnunet_env / "checkpoint.pth"))
    torch.manual_seed(1)
    run_epoch(trainers[1], 1)
    for name, value in trainers[0].network.state_dict().items():
        torch.testing.assert_close(trainers[1].network.state_dict()[name], value, rtol=0, atol=0)
    log = [trainer.logger.get_checkpoint() for trainer in trainers]
    assert log[0]["train_losses"] == log[1]["train_losses"] and len(log[0]["train_losses"]) == 2


class Collector:
    def __init__(self):
        self.values = {}

    def log(self, name, value, step):
        self.values[name] = value


def test_external_loggers_are_told_of_the_terms_where_there_are_any(nnunet_env):
    trainer = make_trainer(FAMILIES[0])
    trainer.initialize()
    collector = Collector()
    loggers = compat.external_loggers(trainer.logger)
    loggers.append(collector)
    run_epoch(trainer, 0)
    assert ("distillation/segmentation" in collector.values) == bool(compat.external_loggers(trainer.logger))


def test_variables_reach_nnunet_within_this_process_and_are_taken_back(nnunet_env, tmp_path):
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    other = tmp_path / "other"
    (other / "Dataset007_There").mkdir(parents=True)
    before = os.environ["nnUNet_preprocessed"]
    compat.set_variables({"nnUNet_preprocessed": str(other)})
    assert maybe_convert_to_dataset_name(7) == "Dataset007_There"
    compat.set_variables({"nnUNet_preprocessed": before})
    with pytest.raises(RuntimeError):
        maybe_convert_to_dataset_name(7)
    compat.set_variables({"nnUNet_preprocessed": None})
    assert compat.nnunet_folder("nnUNet_preprocessed") is None
    compat.set_variables({"nnUNet_preprocessed": ""})  # export nnUNet_preprocessed=$NOT_SET
    assert compat.nnunet_folder("nnUNet_preprocessed") is None
    compat.set_variables({"nnUNet_preprocessed": before})
    assert compat.nnunet_folder("nnUNet_preprocessed") == Path(before)


def test_networks_are_built_by_trainers_written_for_any_nnunet(nnunet_env):
    trainer = make_trainer(FAMILIES[0])

    class Old(type(trainer)):
        @staticmethod
        def build_network_architecture(class_name, arguments, imported, inputs, outputs, enable_deep_supervision=True):
            return class_name, arguments["n_stages"], imported, inputs, outputs, enable_deep_supervision

    class New(type(trainer)):
        @staticmethod
        def build_network_architecture(plans_manager, configuration_manager, inputs, outputs, deep_supervision=True):
            return plans_manager, configuration_manager, inputs, outputs, deep_supervision

    plans, configuration = trainer.plans_manager, trainer.configuration_manager
    built = compat.build_network(Old, plans, configuration, 1, 3, False)
    assert built[0].endswith("PlainConvUNet") and built[1] == 3 and built[3:] == (1, 3, False)
    assert compat.build_network(New, plans, configuration, 1, 3, False) == (plans, configuration, 1, 3, False)
    network = compat.build_network(type(trainer), plans, configuration, 1, 3, False).eval()
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 3, 32, 32)


def test_trainers_are_found_by_name(nnunet_env):
    assert compat.find_trainer("nnUNetTrainer_5epochs").__name__ == "nnUNetTrainer_5epochs"
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer nnUNetTrainerNo"):
        compat.find_trainer("nnUNetTrainerNo")


def test_this_packages_trainers_are_found_by_name(nnunet_env, make_known):
    make_known(trainers_folder())
    assert issubclass(compat.find_trainer("nnUNetTrainerDSKD_1epoch"), SelfDistillationTrainer)
