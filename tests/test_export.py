"""nnunet-skd export: what stock nnU-Net computes from the package is what the source computed."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from commands import IN_ONE_PROCESS
from folders import files_with_hashes
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.model_sharing.model_import import install_model_from_zip_file
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import nnUNetTrainerBN
from toy import DATASET, make_trainer, toy_dataset_json
from toy_models import trained_model

from nnunet_skd.tools.checkpoint_file import read_checkpoint, weights_sha256
from nnunet_skd.tools.cli import main
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.export import to_nnunet as packaging
from nnunet_skd.tools.export.source import SelfCheckFailed, TrainedModel, downsampling
from nnunet_skd.tools.export.temperature import at_temperature
from nnunet_skd.tools.export.to_nnunet import export_nnunet
from nnunet_skd.trainers.nnUNetTrainerDistill import nnUNetTrainerDistill
from nnunet_skd.trainers.nnUNetTrainerDSKD import nnUNetTrainerDSKD
from nnunet_skd.trainers.nnUNetTrainerDSKD_unlabelled import nnUNetTrainerDSKD_unlabelled

INSTALLED = f"{DATASET}/nnUNetTrainer__nnUNetPlans__2d"


def predictor_for(folder: Path, fold, checkpoint="checkpoint_final.pth") -> nnUNetPredictor:
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), (fold,), checkpoint)
    return predictor


def logits(predictor: nnUNetPredictor, dim=2) -> torch.Tensor:
    image = torch.randn(1, 12 if dim == 3 else 1, 20, 20, generator=torch.Generator().manual_seed(7))
    return predictor.predict_logits_from_preprocessed_data(image)


def source_logits(folder: Path, fold: str, dim=2) -> torch.Tensor:
    """By nnU-Net's predictor as well, from a copy of the source that differs in the trainer's name alone."""
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    file = copy / f"fold_{fold}" / "checkpoint_final.pth"
    torch.save(torch.load(file, weights_only=False) | {"trainer_name": "nnUNetTrainer"}, file)
    result = logits(predictor_for(copy, fold), dim)
    shutil.rmtree(copy)
    return result


@pytest.mark.parametrize(
    ("trainer", "dim", "residual", "regions"),
    [
        (nnUNetTrainerDSKD, 2, False, False),
        (nnUNetTrainerDistill, 2, True, True),
        (nnUNetTrainerDSKD, 3, False, False),
        (nnUNetTrainerDSKD_unlabelled, 3, True, False),
    ],
)
def test_installed_package_gives_the_logits_of_the_source(nnunet_env, trainer, dim, residual, regions):
    source = trained_model(trainer, dim=dim, residual=residual, regions=regions, patch=16)
    expected = source_logits(source, "0", dim)
    before = files_with_hashes(source)
    shutil.move(source, nnunet_env / source.name)
    package = export_nnunet(nnunet_env / source.name, nnunet_env / "model.zip", [0])
    assert files_with_hashes(nnunet_env / source.name) == before

    install_model_from_zip_file(str(nnunet_env / "model.zip"))
    installed = nnunet_env / "nnUNet_results" / package.dataset_name / package.model_folder_name
    predictor = predictor_for(installed, 0)
    assert predictor.trainer_name == "nnUNetTrainer"
    assert predictor.allowed_mirroring_axes == tuple(range(dim))
    assert torch.equal(logits(predictor, dim), expected)
    assert expected.std() > 0.1


def test_archive_holds_what_prediction_needs_and_nothing_else(nnunet_env):
    source = trained_model(folds=("0", "1"))
    (source / "crossval_results_folds_0_1").mkdir()
    (source / "crossval_results_folds_0_1" / "postprocessing.pkl").write_bytes(b"never unpickled")
    (source / "fold_0" / "debug.json").write_text("{}")
    package = export_nnunet(source, nnunet_env / "model.zip", [0, 1])
    with zipfile.ZipFile(nnunet_env / "model.zip") as archive:
        names = set(archive.namelist())
    files = ["plans.json", "dataset.json", "dataset_fingerprint.json", "crossval_results_folds_0_1/postprocessing.pkl"]
    files += [f"fold_{fold}/checkpoint_final.pth" for fold in (0, 1)]
    assert names == {f"{INSTALLED}/{name}" for name in files}
    assert package.has_postprocessing
    assert package.bytes_before == sum((source / f"fold_{fold}/checkpoint_final.pth").stat().st_size for fold in (0, 1))
    assert package.bytes_after == (nnunet_env / "model.zip").stat().st_size < package.bytes_before / 2


def test_no_case_is_named(nnunet_env):
    source = trained_model()
    cases = {"dataset": {"DOE_1950": {"images": ["/pacs/DOE_1950_0000.nii.gz"], "label": "/pacs/DOE_1950.nii.gz"}}}
    file = source / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | cases | {"training": [{"image": "./DOE_1950.nii.gz"}]}))
    export_nnunet(source, nnunet_env / "model", ["0"])
    written = [path for path in (nnunet_env / "model").rglob("*") if path.is_file()]
    assert len(written) == 4 and not [path for path in written if b"DOE" in path.read_bytes()]


def strings_in(value) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in strings_in(item)]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in strings_in(item)]
    return [value] if isinstance(value, str) else []


def test_checkpoint_is_plain_and_names_the_original_trainer_once(nnunet_env):
    source = trained_model()
    package = export_nnunet(source, nnunet_env / "model", ["0"])
    written = torch.load(nnunet_env / "model" / "fold_0" / "checkpoint_final.pth", weights_only=True)
    original = torch.load(source / "fold_0" / "checkpoint_final.pth", weights_only=False)

    assert set(written) == {
        "network_weights",
        "trainer_name",
        "init_args",
        "inference_allowed_mirroring_axes",
        "nnunet_skd",
    }
    origin = written.pop("nnunet_skd")
    assert origin["trainer_name"] == "nnUNetTrainerDSKD"
    assert origin["trainer_class_compared"] is True
    assert origin["epochs"] == 1
    assert origin["weights_sha256"] == package.weights_sha256["0"] == weights_sha256(original["network_weights"])
    assert set(origin["exported_with"]) == {"nnunetv2", "torch", "nnunet_skd"}
    assert not [text for text in strings_in(written) if "DSKD" in text]
    assert written["init_args"]["configuration"] == "2d"
    assert list(written["network_weights"]) == list(original["network_weights"])
    assert not [p for p in (nnunet_env / "model").glob("*.json") if "DSKD" in p.read_text()]


def test_exporting_the_export_keeps_the_origin(nnunet_env):
    first = export_nnunet(trained_model(), nnunet_env / "first", [0])
    second = export_nnunet(nnunet_env / "first", nnunet_env / "second", [0])
    written = torch.load(nnunet_env / "second" / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert written["trainer_name"] == "nnUNetTrainer"
    assert written["nnunet_skd"]["trainer_name"] == second.trainer_name == "nnUNetTrainerDSKD"
    assert written["nnunet_skd"]["epochs"] == 1
    assert second.weights_sha256 == first.weights_sha256


@pytest.mark.parametrize(("dim", "residual", "regions"), [(2, False, True), (3, True, False)])
def test_temperature_divides_what_nnunet_predicts(nnunet_env, dim, residual, regions, capsys):
    source = trained_model(dim=dim, residual=residual, regions=regions, patch=16)
    expected = source_logits(source, "0", dim).float()  # windows and flips
    target = nnunet_env / "calibrated"
    assert main(["export", "-m", str(source), "-f", "0", "-o", str(target), "--temperature", "1.7"]) == 0
    assert "logits equal to the source's, divided by 1.7, for fold 0" in capsys.readouterr().out
    difference = (logits(predictor_for(target, 0), dim).float() - expected / 1.7).abs()
    # nnU-Net sums in half precision, of which little is left in the corners, where its Gaussian is smallest
    assert difference.quantile(0.9) < 2e-3 * expected.abs().max()
    assert expected.std() > 0.1
    before, after = (
        torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False) for folder in (source, target)
    )
    changed = {
        name
        for name, tensor in before["network_weights"].items()
        if not torch.equal(tensor, after["network_weights"][name])
    }
    assert changed == {name for name in before["network_weights"] if name.startswith("decoder.seg_layers.")} != set()
    assert after["nnunet_skd"]["temperature"] == 1.7


def test_temperatures_of_exports_multiply(nnunet_env):
    export_nnunet(trained_model(), nnunet_env / "first", [0], temperature=2)
    export_nnunet(nnunet_env / "first", nnunet_env / "second", [0], temperature=1.5)
    export_nnunet(nnunet_env / "second", nnunet_env / "third", [0])
    written = torch.load(nnunet_env / "third" / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert written["nnunet_skd"]["temperature"] == 3


@pytest.mark.parametrize("temperature", ["0", "-1", "nan", "inf", "1e30"])
def test_no_temperature(nnunet_env, temperature, capsys):
    command = ["export", "-m", "not looked for", "-f", "0", "-o", str(nnunet_env / "model")]
    assert main([*command, f"--temperature={temperature}"]) == 2
    assert "is a number from 0.1 to 10" in capsys.readouterr().err
    assert not (nnunet_env / "model").exists()


def test_temperature_needs_the_last_layers_of_a_unet(nnunet_env):
    model = TrainedModel(trained_model(), [0])
    fold = model.open_fold("0")
    others = {name: tensor for name, tensor in fold.weights.items() if "seg_layers" not in name}
    with pytest.raises(BadInput, match="has none. Divide the logits where you read them"):
        at_temperature(dataclasses.replace(fold, weights=others), 2, model)


def test_last_layers_that_are_not_the_last_are_noticed(nnunet_env):
    model = TrainedModel(trained_model(), [0])
    fold = model.open_fold("0")

    class More(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = fold.network

        def forward(self, x):
            return self.network(x) + 1

        def load_state_dict(self, weights):
            return self.network.load_state_dict(weights)

    with pytest.raises(SelfCheckFailed, match="with the last layers divided by 2, the logits are not those of"):
        at_temperature(dataclasses.replace(fold, network=More()), 2, model)


def test_package_serves_as_pretrained_weights(nnunet_env):
    export_nnunet(trained_model(), nnunet_env / "model", [0])
    file = nnunet_env / "model" / "fold_0" / "checkpoint_final.pth"
    trainer = make_trainer(nnUNetTrainer, seed=1)
    trainer.initialize()
    load_pretrained_weights(trainer.network, str(file))
    expected = torch.load(file, weights_only=True)["network_weights"]
    name = "encoder.stages.0.0.convs.0.conv.weight"
    assert torch.equal(trainer.network.state_dict()[name], expected[name])


def test_fold_all_and_another_checkpoint_name(nnunet_env, capsys):
    source = trained_model(folds=("all",), checkpoint="checkpoint_best.pth")
    target = nnunet_env / "model"
    assert main(["export", "-m", str(source), "-f", "all", "-chk", "checkpoint_best.pth", "-o", str(target)]) == 0
    assert predictor_for(target, "all", "checkpoint_best.pth").trainer_name == "nnUNetTrainer"
    assert "-m model -f all -i INPUT -o OUTPUT -chk checkpoint_best.pth" in capsys.readouterr().out


def test_command_finds_the_model_and_warns_of_one_that_installing_would_overwrite(nnunet_env, capsys):
    trained_model()
    command = ["export", "-d", "900", "-c", "2d", "-tr", "nnUNetTrainerDSKD", "-f", "0", "-o"]
    assert main([*command, str(nnunet_env / "a.zip")]) == 0
    output = capsys.readouterr().out
    assert "MB -> " in output and "smaller" in output
    assert "nnUNetv2_install_pretrained_model_from_zip a.zip" in output
    assert f"nnUNetv2_predict -d {DATASET} -c 2d -tr nnUNetTrainer -p nnUNetPlans -f 0" in output
    assert f"overwrites $nnUNet_results/{INSTALLED}" in output
    assert "THIS machine" not in output
    install_model_from_zip_file(str(nnunet_env / "a.zip"))
    assert main([*command, str(nnunet_env / "b.zip")]) == 0
    assert "THIS machine has such a model" in capsys.readouterr().out


def test_another_plans_name_installs_beside_a_stock_model(nnunet_env):
    source = trained_model()
    export_nnunet(trained_model(nnUNetTrainer), nnunet_env / "stock.zip", [0])
    package = export_nnunet(source, nnunet_env / "ours.zip", [0], plans_name="nnUNetPlansDSKD")
    install_model_from_zip_file(str(nnunet_env / "stock.zip"))
    stock = files_with_hashes(nnunet_env / "nnUNet_results" / INSTALLED)
    install_model_from_zip_file(str(nnunet_env / "ours.zip"))
    assert files_with_hashes(nnunet_env / "nnUNet_results" / INSTALLED) == stock
    assert package.model_folder_name == "nnUNetTrainer__nnUNetPlansDSKD__2d"
    predictor = predictor_for(nnunet_env / "nnUNet_results" / DATASET / package.model_folder_name, 0)
    assert predictor.plans_manager.plans_name == "nnUNetPlansDSKD"


def test_weights_hash_depends_on_names_values_and_shapes_only():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    expected = hashlib.sha256(b"a torch.float32 (2, 2)\n" + np.array([1, 2, 3, 4], "<f4").tobytes())
    expected.update(b"b torch.int64 ()\n" + np.array(7, "<i8").tobytes())
    assert weights_sha256({"b": torch.tensor(7), "a": values}) == expected.hexdigest()
    assert weights_sha256({"b": torch.tensor(7), "a": values.T.contiguous().T}) == expected.hexdigest()
    assert weights_sha256({"b": torch.tensor(7), "a": values.T}) != expected.hexdigest()


def test_downsampling_multiplies_the_strides(nnunet_env):
    trainer = make_trainer(nnUNetTrainer, dim=3)
    arguments = trainer.configuration_manager.network_arch_init_kwargs
    arguments["strides"] = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    assert downsampling(trainer.configuration_manager) == [2, 4, 4]
    arguments["strides"] = [1, 2, 2]
    assert downsampling(trainer.configuration_manager) == [4, 4, 4]
    del arguments["strides"]
    assert downsampling(trainer.configuration_manager) is None


# --- what is refused, and what is left behind then: nothing ---


def refused(nnunet_env, source: Path, message: str, folds=(0,), **options):
    """Export must fail with this message and leave everything as it was."""
    before = files_with_hashes(nnunet_env)
    with pytest.raises(BadInput, match=message):
        export_nnunet(source, options.pop("output", nnunet_env / "model.zip"), folds, **options)
    assert files_with_hashes(nnunet_env) == before
    assert not list(nnunet_env.glob(".model*"))


def test_existing_target_is_refused(nnunet_env):
    source = trained_model()
    (nnunet_env / "model.zip").write_text("mine")
    refused(nnunet_env, source, "model.zip exists, and nothing is overwritten")
    refused(nnunet_env, source, "there is no folder .*missing. Create it", output=nnunet_env / "missing" / "a.zip")
    refused(nnunet_env, source, "lies in the model that is exported", output=source / "a.zip")


@pytest.mark.parametrize("onnx", [False, True])
def test_a_fold_of_other_plans_is_refused(nnunet_env, capsys, onnx):
    """nnU-Net wrote plans.json anew when it trained another fold."""
    source = trained_model()
    plans = json.loads((source / "plans.json").read_text())
    plans["configurations"]["2d"]["spacing"] = [2.0, 2.0]
    (source / "plans.json").write_text(json.dumps(plans))
    refused(nnunet_env, source, "fold_0 was trained with other plans.*differ in spacing.* then, .2.0, 2.0. now")
    target = ["--onnx", str(nnunet_env / "a.onnx")] if onnx else ["-o", str(nnunet_env / "a.zip")]
    assert main(["export", "-m", str(source), "-f", "0", *target]) == 2
    assert "fold_0 was trained with other plans" in capsys.readouterr().err


def test_missing_parts_are_named_with_what_is_there(nnunet_env):
    source = trained_model(folds=("0", "2"))
    refused(nnunet_env, source, r"fold 1, 3, 4 in .*Folds that have it: -f 0 2", folds=range(5))
    refused(nnunet_env, source, "No fold has it: see -chk", checkpoint_name="checkpoint_best.pth")
    refused(nnunet_env, source, "numbers or 'all', at least one: not x/0", folds=["x/0"])
    refused(nnunet_env, source, "without folders: not ../a.pth", checkpoint_name="../a.pth")
    refused(nnunet_env, source.parent / "typo", "Trained there: nnUNetTrainerDSKD__nnUNetPlans__2d")
    refused(nnunet_env, source, "two underscores in a row", plans_name="a__b")
    refused(nnunet_env, source, "cannot be part of a model's folder name", plans_name="../a")
    (source / "dataset.json").write_text("{")
    refused(nnunet_env, source, "dataset.json is not JSON")
    (source / "dataset.json").unlink()
    refused(nnunet_env, source, "dataset.json is missing")


def test_network_with_other_weights_is_refused(nnunet_env):
    refused(nnunet_env, trained_model(nnUNetTrainerBN), "do not fit the network that nnUNetTrainer builds")


def test_network_that_differs_without_weights_is_refused(nnunet_env, make_known):
    """Another activation has no weights: only comparing with the trainer's own network finds it."""
    trainers = nnunet_env / "trainers"
    trainers.mkdir()
    (trainers / "relu.py").write_text(
        "import functools\n"
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerReLU(nnUNetTrainer):\n"
        "    @staticmethod\n"
        "    @functools.wraps(nnUNetTrainer.build_network_architecture)\n"
        "    def build_network_architecture(*arguments, **named):\n"
        "        network = nnUNetTrainer.build_network_architecture(*arguments, **named)\n"
        "        for module in network.modules():\n"
        "            if hasattr(module, 'negative_slope'):\n"
        "                module.negative_slope = 0.0\n"
        "        return network\n"
    )
    source = trained_model(nnUNetTrainer)
    file = source / "fold_0" / "checkpoint_final.pth"
    torch.save(torch.load(file, weights_only=False) | {"trainer_name": "nnUNetTrainerReLU"}, file)
    make_known(trainers)
    refused(nnunet_env, source, "nnUNetTrainerReLU computes something else than the stock network")

    torch.save(torch.load(file, weights_only=False) | {"trainer_name": "nnUNetTrainerNotInstalledHere"}, file)
    assert not export_nnunet(source, nnunet_env / "model.zip", [0]).trainer_found


@pytest.mark.parametrize("key", ["network_class_name", "nonlin"])
def test_plans_that_name_foreign_classes_are_refused_before_they_are_imported(nnunet_env, monkeypatch, key):
    source = trained_model()
    (nnunet_env / "foreign_network.py").write_text(f"open({str(nnunet_env / 'was_imported')!r}, 'w')\n")
    monkeypatch.syspath_prepend(nnunet_env)
    plans = json.loads((source / "plans.json").read_text())
    architecture = plans["configurations"]["2d"]["architecture"]
    (architecture if key == "network_class_name" else architecture["arch_kwargs"])[key] = "foreign_network.Net"
    (source / "plans.json").write_text(json.dumps(plans))
    refused(nnunet_env, source, "build their network .*foreign_network.Net")
    assert not (nnunet_env / "was_imported").exists()


class Intruder:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def test_code_in_a_checkpoint_is_not_executed(nnunet_env, capsys):
    source = trained_model()
    file = source / "fold_0" / "checkpoint_final.pth"
    torch.save(torch.load(file, weights_only=False) | {"logging": Intruder(nnunet_env / "executed")}, file)
    refused(nnunet_env, source, r"would have to execute 'posix.mkdir'.*--allow_pickle")
    assert not (nnunet_env / "executed").exists()

    command = ["export", "-m", str(source), "-f", "0", "-o", str(nnunet_env / "model.zip")]
    assert main(command) == 2
    assert main([*command, "--allow_pickle"]) == 0
    assert "will be executed" in capsys.readouterr().err
    assert (nnunet_env / "executed").exists()


@pytest.mark.parametrize("onnx", [False, True])
@pytest.mark.parametrize("name", ["nonlin", "conv_op", "network_class_name"])
def test_plans_cannot_reach_a_function_through_the_attributes_of_a_trusted_module(nnunet_env, name, onnx):
    """nnU-Net's pydoc.locate follows attributes: torch.nn.parallel.distributed.os.system starts with torch.nn."""
    if onnx:
        pytest.importorskip("onnxscript")
    source = trained_model()
    witness = nnunet_env / "was_run"
    plans = json.loads((source / "plans.json").read_text())
    architecture = plans["configurations"]["2d"]["architecture"]
    if name == "network_class_name":
        (nnunet_env / "hubconf.py").write_text(f"def net(**_):\n    open({str(witness)!r}, 'w')\n")
        architecture[name] = "dynamic_network_architectures.architectures.unet.torch.hub.load"
        architecture["arch_kwargs"] = {"repo_or_dir": str(nnunet_env), "model": "net", "source": "local"}
        architecture["_kw_requires_import"] = []
    else:
        architecture["arch_kwargs"] |= {
            name: "torch.nn.parallel.distributed.os.system",
            f"{name}_kwargs": {"command": f"touch {witness}"},
        }
    (source / "plans.json").write_text(json.dumps(plans))
    target = ["--onnx", nnunet_env / "m.onnx"] if onnx else ["-o", nnunet_env / "m.zip"]
    assert main([str(a) for a in ["export", "-m", source, "-f", 0, *target]]) == 2
    assert not witness.exists()


def test_an_argument_that_the_layer_does_not_have_is_refused(nnunet_env):
    source = trained_model()
    plans = json.loads((source / "plans.json").read_text())
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["nonlin_kwargs"] = {"inplace": True, "hook": 1}
    (source / "plans.json").write_text(json.dumps(plans))
    refused(nnunet_env, source, "LeakyReLU has no argument hook")


def test_damaged_and_foreign_files_are_refused(nnunet_env):
    source = trained_model()
    file = source / "fold_0" / "checkpoint_final.pth"
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>not found</html>", b""):
        file.write_bytes(content)
        refused(nnunet_env, source, "is damaged or not a checkpoint .* Copy it again")
    torch.save({"state_dict": {}}, file)
    refused(nnunet_env, source, "not a checkpoint of nnU-Net v2 .*'network_weights' is missing")
    torch.save([1], file)
    refused(nnunet_env, source, "not a checkpoint of nnU-Net v2 .* Name one with -chk")


def test_diverged_weights_are_refused(nnunet_env):
    source = trained_model()
    file = source / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    next(iter(checkpoint["network_weights"].values())).fill_(float("nan"))
    torch.save(checkpoint, file)
    refused(nnunet_env, source, "not finite: the training diverged")


def test_failed_self_check_leaves_nothing(nnunet_env, monkeypatch, capsys):
    source = trained_model()
    honest = packaging._stock_checkpoint

    def one_bit_off(*args):
        checkpoint = honest(*args)
        weights = {name: tensor.clone() for name, tensor in checkpoint["network_weights"].items()}
        weights["decoder.seg_layers.1.bias"][0] += 1e-3
        return checkpoint | {"network_weights": weights}

    monkeypatch.setattr(packaging, "_stock_checkpoint", one_bit_off)
    before = files_with_hashes(nnunet_env)
    assert main(["export", "-m", str(source), "-f", "0", "-o", str(nnunet_env / "model.zip")]) == 1
    assert "other logits from the package" in capsys.readouterr().err
    assert files_with_hashes(nnunet_env) == before


def test_numpy_numbers_are_read_safely_and_by_both_of_their_names(tmp_path):
    checkpoint = {"network_weights": {}, "trainer_name": "x", "init_args": {"configuration": "2d"}}
    file = tmp_path / "c.pth"
    torch.save(checkpoint | {"logging": [np.float32(1), np.float64(2), np.int64(3)]}, file)
    assert read_checkpoint(file)["logging"] == [1, 2, 3]
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    other = {b"numpy._core.multiarray": b"numpy.core.multiarray", b"numpy.core.multiarray": b"numpy._core.multiarray"}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            old = next((name for name in other if name in content), None)
            archive.writestr(name, content.replace(old, other[old]) if old else content)
    assert read_checkpoint(file)["logging"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which model"),
        (["-m", "x", "-d", "1"], "give it alone"),
        (["-m", "x", "--dynamic"], "--dynamic belongs to --onnx"),
        (["-d", "899", "-c", "2d", "-tr", "nnUNetTrainer"], "Could not find a dataset with the ID 899"),
        (["-d", "heart", "-c", "2d", "-tr", "nnUNetTrainer"], "did not start with 'Dataset'"),
    ],
)
def test_command_refuses(nnunet_env, capsys, arguments, message):
    assert main(["export", *arguments, "-o", str(nnunet_env / "a.zip")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_nnunets_own_commands_in_an_environment_without_this_package(nnunet_env):
    """Two folds: export, install and predict by command, and compare with the source's ensemble in this process."""
    source = trained_model(folds=("0", "1"))
    images = nnunet_env / "images"
    images.mkdir()
    noise = np.random.default_rng(0).normal(size=(40, 36, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), images / "case_0000.nii.gz")

    expected = nnunet_env / "expected"
    expected.mkdir()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    plans = make_trainer(nnUNetTrainer).plans_manager
    weights = [read_checkpoint(source / f"fold_{fold}" / "checkpoint_final.pth")["network_weights"] for fold in (0, 1)]
    trainer = make_trainer(nnUNetTrainerDSKD)
    trainer.initialize()
    trainer.set_deep_supervision_enabled(False)
    configuration = plans.get_configuration("2d")
    predictor.manual_initialization(
        trainer.network, plans, configuration, weights, toy_dataset_json(), "nnUNetTrainerDSKD", (0, 1)
    )
    predictor.predict_from_files_sequential(str(images), str(expected))

    assert main(["export", "-m", str(source), "-f", "0", "1", "-o", str(nnunet_env / "model.zip")]) == 0
    shutil.rmtree(nnunet_env / "nnUNet_results")
    (nnunet_env / "nnUNet_results").mkdir()
    (nnunet_env / "blocked").mkdir()
    (nnunet_env / "blocked" / "nnunet_skd.py").write_text("raise ModuleNotFoundError('no', name='nnunet_skd')\n")
    environment = os.environ | {"PYTHONPATH": str(nnunet_env / "blocked"), "OMP_NUM_THREADS": "1"}

    def command(*words, succeeds=True):
        words = [str(Path(sys.executable).parent / words[0]), *words[1:]]
        assert (subprocess.run(words, env=environment, cwd=nnunet_env).returncode == 0) == succeeds

    command("python", "-c", "import nnunet_skd", succeeds=False)

    command("nnUNetv2_install_pretrained_model_from_zip", str(nnunet_env / "model.zip"))
    options = ["-d", DATASET, "-c", "2d", "-tr", "nnUNetTrainer", "-f", "0", "1", "-device", "cpu"]
    options += map(str, IN_ONE_PROCESS)
    command("nnUNetv2_predict", "-i", str(images), "-o", str(nnunet_env / "predicted"), *options)
    predicted, wanted = (
        np.asarray(nibabel.load(nnunet_env / folder / "case.nii.gz").dataobj) for folder in ("predicted", "expected")
    )
    assert len(np.unique(wanted)) > 1
    assert np.array_equal(predicted, wanted)
