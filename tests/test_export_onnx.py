"""nnunet-skd export --onnx: the file computes what PyTorch computes, and its description is complete and right."""

import hashlib
import json
import sys

import numpy as np
import pytest
import torch
from folders import files_with_hashes
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from toy import make_trainer, toy_dataset_json
from toy_models import trained_model

from nnunet_skd.tools.checkpoint_file import read_checkpoint, weights_sha256
from nnunet_skd.tools.cli import main
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.export import to_onnx as module
from nnunet_skd.tools.export.description import NORMALIZATION, describe
from nnunet_skd.tools.export.source import Fold, SelfCheckFailed, TrainedModel
from nnunet_skd.tools.export.to_onnx import export_onnx
from nnunet_skd.trainers.nnUNetTrainerDistill import nnUNetTrainerDistill

onnxruntime = pytest.importorskip("onnxruntime")


def run_onnx(file, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": image})[0]


def stock_logits(source, image: np.ndarray) -> np.ndarray:
    """The network that nnU-Net's own predictor builds from the checkpoint."""
    predictor = nnUNetPredictor(device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(str(source), ("0",))
    with torch.inference_mode():
        return predictor.network.eval()(torch.from_numpy(image)).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
def test_dynamic_model_equals_pytorch_for_any_batch_and_patch(nnunet_env, dim, residual):
    source = trained_model(nnUNetTrainer, dim=dim, residual=residual, patch=16)
    result = export_onnx(source, nnunet_env / "model.onnx", 0, dynamic=True)
    assert result.shapes_tried == [(1, 1, *[16] * dim), (2, 1, *[8] * dim)]
    assert result.max_abs_difference < 1e-4
    for batch, size in ((1, [16] * dim), (3, [12, 20, 8][:dim])):
        image = np.random.default_rng(0).normal(size=(batch, 1, *size)).astype(np.float32)
        expected = stock_logits(source, image)
        assert expected.shape == (batch, 3, *size)
        assert np.abs(run_onnx(nnunet_env / "model.onnx", image) - expected).max() < 1e-4
        assert expected.std() > 0.01
    description = json.loads((nnunet_env / "model.json").read_text())
    assert description["onnx"]["input"]["shape"] == ["any", 1] + ["multiple of 4, at least 8"] * dim


def test_temperature_divides_the_logits(nnunet_env, capsys):
    source = trained_model(nnUNetTrainer, patch=16)
    command = ["export", "-m", str(source), "-f", "0", "--onnx", str(nnunet_env / "model.onnx")]
    assert main([*command, "--temperature", "1.7"]) == 0
    assert "its logits are those of the source divided by 1.7" in capsys.readouterr().out
    image = np.random.default_rng(0).normal(size=(1, 1, 16, 16)).astype(np.float32)
    expected = stock_logits(source, image) / 1.7
    assert np.abs(run_onnx(nnunet_env / "model.onnx", image) - expected).max() < 1e-4
    assert json.loads((nnunet_env / "model.json").read_text())["source"]["temperature"] == 1.7


def test_fixed_model_is_one_file_and_takes_its_patch_only(nnunet_env, capsys):
    source = trained_model(nnUNetTrainerDistill, patch=16)
    before = files_with_hashes(source)
    command = ["export", "-m", str(source), "-f", "0", "--onnx", str(nnunet_env / "model.onnx")]
    assert main(command) == 0
    assert files_with_hashes(source) == before
    output = capsys.readouterr().out
    assert "max abs difference to PyTorch" in output and "1x1x16x16" in output

    assert sorted(p.name for p in nnunet_env.iterdir() if "model" in p.name) == ["model.json", "model.onnx"]
    written = json.loads((nnunet_env / "model.json").read_text())["onnx"]
    assert written["sha256"] == {"model.onnx": hashlib.sha256((nnunet_env / "model.onnx").read_bytes()).hexdigest()}
    assert written["input"]["shape"] == [1, 1, 16, 16]
    assert written["output"]["shape"] == [1, 3, 16, 16]
    assert written["max_abs_difference_to_pytorch"] < 1e-4
    assert run_onnx(nnunet_env / "model.onnx", np.zeros((1, 1, 16, 16), np.float32)).shape == (1, 3, 16, 16)
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run_onnx(nnunet_env / "model.onnx", np.zeros((1, 1, 32, 32), np.float32))

    assert main(command) == 2
    assert "model.onnx exists, and nothing is overwritten" in capsys.readouterr().err


def test_weights_beyond_protobufs_limit_go_to_a_file_beside(nnunet_env, monkeypatch):
    monkeypatch.setattr(module, "ONE_FILE_LIMIT", 100)
    source = trained_model(nnUNetTrainer, patch=16)
    export_onnx(source, nnunet_env / "model.onnx", 0)
    assert sorted(p.name for p in nnunet_env.glob("model*")) == ["model.json", "model.onnx", "model.onnx.data"]
    written = json.loads((nnunet_env / "model.json").read_text())["onnx"]
    assert set(written["sha256"]) == {"model.onnx", "model.onnx.data"}
    image = np.ones((1, 1, 16, 16), np.float32)
    assert np.abs(run_onnx(nnunet_env / "model.onnx", image) - stock_logits(source, image)).max() < 1e-4


@pytest.mark.parametrize("difference", [2e-3, float("nan")])
def test_too_large_a_difference_leaves_nothing(nnunet_env, monkeypatch, capsys, difference):
    source = trained_model(nnUNetTrainer, patch=16)
    before = files_with_hashes(nnunet_env)
    monkeypatch.setattr(module, "write_onnx", lambda network, file, *args: file.write_bytes(b"model"))
    monkeypatch.setattr(module, "max_abs_difference", lambda *args: difference)
    with pytest.raises(SelfCheckFailed, match="more than 0.001. Nothing was written"):
        export_onnx(source, nnunet_env / "model.onnx", 0)
    assert files_with_hashes(nnunet_env) == before
    assert main(["export", "-m", str(source), "-f", "0", "--onnx", str(nnunet_env / "model.onnx")]) == 1
    assert "nnunet-skd export: the self-check failed: logits of ONNX" in capsys.readouterr().err


def test_a_file_that_onnx_runtime_cannot_run_leaves_nothing(nnunet_env, monkeypatch):
    source = trained_model(nnUNetTrainer, patch=16)
    before = files_with_hashes(nnunet_env)
    monkeypatch.setattr(module, "write_onnx", lambda network, file, *args: file.write_bytes(b"model"))
    with pytest.raises(SelfCheckFailed, match="ONNX Runtime cannot run what PyTorch wrote: .* Nothing was written"):
        export_onnx(source, nnunet_env / "model.onnx", 0)
    assert files_with_hashes(nnunet_env) == before


def test_difference_is_the_largest_over_shapes(nnunet_env):
    """Another network than the exported one: the difference is the constant by which their biases differ."""
    trainer = make_trainer(nnUNetTrainer, patch=16)
    trainer.initialize()
    trainer.set_deep_supervision_enabled(False)
    network = trainer.network.eval()
    module.write_onnx(network, nnunet_env / "a.onnx", (1, 1, 16, 16), False, None)
    with torch.no_grad():
        network.decoder.seg_layers[-1].bias[1] += 0.25
    difference = module.max_abs_difference(nnunet_env / "a.onnx", network, [(1, 1, 16, 16)])
    assert difference == pytest.approx(0.25, abs=1e-4)


@pytest.mark.slow
def test_network_without_strides_has_a_dynamic_batch_only(tmp_path):
    network = torch.nn.Conv2d(1, 3, 3, padding=1).eval()
    module.write_onnx(network, tmp_path / "a.onnx", (1, 1, 16, 16), True, None)
    sizes = [(1, 1, 16, 16), (3, 1, *module._another_size([16, 16], None))]
    assert module.max_abs_difference(tmp_path / "a.onnx", network, sizes) < 1e-5
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run_onnx(tmp_path / "a.onnx", np.zeros((1, 1, 32, 32), np.float32))


def test_missing_extra_names_the_command(nnunet_env, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(BadInput, match=r'onnxscript missing: pip install "nnunet_skd\[onnx\]"'):
        export_onnx(nnunet_env, nnunet_env / "model.onnx", 0)


def test_what_cannot_be_written_is_refused(nnunet_env, capsys):
    source = trained_model(nnUNetTrainer, patch=16)
    with pytest.raises(BadInput, match="does not end in .onnx"):
        export_onnx(source, nnunet_env / "model.json", 0)
    (nnunet_env / "model.json").write_text("mine")
    with pytest.raises(BadInput, match="model.json exists"):
        export_onnx(source, nnunet_env / "model.onnx", 0)
    target = ["--onnx", str(nnunet_env / "other.onnx")]
    assert main(["export", "-m", str(source), *target]) == 2
    assert main(["export", "-m", str(source), "-f", "0", "1", *target]) == 2
    assert capsys.readouterr().err.count("an ONNX file holds one fold") == 2
    assert main(["export", "-m", str(source), "-f", "0", "-overwrite_plans_name", "x", *target]) == 2
    assert "belongs to -o" in capsys.readouterr().err


def description_of(source, **changes) -> dict:
    weights = read_checkpoint(source / "fold_0" / "checkpoint_final.pth")["network_weights"]
    fold = Fold("0", source / "fold_0" / "checkpoint_final.pth", weights, None, "2d", "nnUNetTrainerX", True, [0, 1], 7)
    model = TrainedModel(source, [0])
    model.dataset_json.update(changes.pop("dataset_json", {}))
    configuration = model.configuration("2d")
    configuration.configuration.update(changes)
    model.label_manager = model.plans_manager.get_label_manager(model.dataset_json)
    return json.loads(json.dumps(describe(model, fold, configuration)))


def test_channels_are_counted_whatever_their_keys_are(nnunet_env):
    source = trained_model(nnUNetTrainer, patch=16)
    description = description_of(source, dataset_json={"channel_names": {"CT": "CT"}})
    assert description["input_channels"] == [{"channel": 0, "name": "CT"}]


def test_description_holds_what_another_program_needs(nnunet_env):
    source = trained_model(nnUNetTrainer, patch=16)
    (source / "plans.json").write_text(
        json.dumps(
            json.loads((source / "plans.json").read_text())
            | {
                "transpose_forward": [1, 0, 2],
                "transpose_backward": [1, 0, 2],
                "foreground_intensity_properties_per_channel": {
                    "0": {"mean": 10.0, "std": 2.0, "percentile_00_5": 1.0, "percentile_99_5": 20.0}
                },
            }
        )
    )
    text = description_of(source, spacing=[0.5, 0.25], normalization_schemes=["CTNormalization"])
    assert text["input_channels"] == [{"channel": 0, "name": "CT"}]
    assert text["file_ending"] == ".nii.gz" and text["image_reader"] == "NibabelIO"
    before, window, after = text["preprocessing"], text["sliding_window"], text["postprocessing"]
    assert before["spacing"] == [0.5, 0.25]
    assert before["transpose_forward"] == after["transpose_backward"] == [1, 0, 2]
    (channel,) = before["normalization"]
    assert channel["scheme"] == "CTNormalization" and channel["use_mask_for_norm"] is False
    assert channel["intensity_properties"]["percentile_99_5"] == 20.0
    assert before["resampling"]["order"] == 3 and after["resampling"]["order"] == 1
    assert window["patch_size"] == [16, 16] and window["mirroring_axes"] == [0, 1]
    assert (window["tile_step_size"], window["gaussian_sigma_scale"]) == (0.5, 0.125)
    assert after["activation"] == "softmax"
    assert [(c["channel"], c["name"], c["label"]) for c in after["output_channels"]] == [
        (0, "background", 0),
        (1, "a", 1),
        (2, "b", 2),
    ]
    assert text["source"]["trainer_name"] == "nnUNetTrainerX" and text["source"]["epochs"] == 7
    weights = read_checkpoint(source / "fold_0" / "checkpoint_final.pth")["network_weights"]
    assert text["source"]["weights_sha256"] == weights_sha256(weights)


def test_description_of_regions_ignore_label_and_cascade(nnunet_env):
    source = trained_model(nnUNetTrainer, patch=16)
    regions = toy_dataset_json(regions=True, ignore=True) | {"regions_class_order": [2, 1]}
    text = description_of(source, dataset_json=regions, previous_stage="3d_lowres")
    after = text["postprocessing"]
    assert after["activation"] == "sigmoid" and "exceeds 0.5" in after["order"][2]
    assert [(c["name"], c["label"]) for c in after["output_channels"]] == [("whole", 2), ("core", 1)]
    assert text["regions_class_order"] == [2, 1] and text["ignore_label"] == 3
    assert [c["channel"] for c in text["input_channels"]] == [0, 1, 2]
    assert "3d_lowres predicts label 2" in text["input_channels"][2]["name"]
    before = text["preprocessing"]
    assert "resampled as labels, and then split into channels" in before["previous_stage"]
    assert before["resampling_of_previous_stage"]["is_seg"] and not before["resampling"]["is_seg"]


def test_formulas_are_those_of_nnunet(nnunet_env):
    """The words in the description, computed as they say, against nnU-Net's classes."""
    from nnunetv2.preprocessing.normalization import default_normalization_schemes as schemes

    properties = {"mean": 3.0, "std": 2.0, "percentile_00_5": 1.0, "percentile_99_5": 6.0}
    x = np.random.default_rng(0).uniform(0, 9, (4, 5)).astype(np.float32)
    mask = x > 2
    masked = np.where(mask, x, 0)
    by_words = {
        "CTNormalization": (np.clip(x, 1, 6) - 3) / 2,
        "ZScoreNormalization": (x - x.mean()) / x.std(),
        "NoNormalization": x,
        "RescaleTo01Normalization": (x - x.min()) / (x - x.min()).max(),
        "RGBTo01Normalization": x / 255,
    }
    assert set(by_words) == set(NORMALIZATION)
    for name, expected in by_words.items():
        actual = getattr(schemes, name)(use_mask_for_norm=False, intensityproperties=properties).run(x.copy())
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    inside = masked[mask]
    expected = np.where(mask, (x - inside.mean()) / inside.std(), 0)
    zscore = schemes.ZScoreNormalization(use_mask_for_norm=True, intensityproperties=properties)
    np.testing.assert_allclose(zscore.run(masked.copy(), np.where(mask, 0, -1)), expected, rtol=1e-4, atol=1e-5)
