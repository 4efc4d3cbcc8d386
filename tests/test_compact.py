"""Compact configurations: the entry that is written, what nnU-Net reads from it, and what is refused."""

import json
import os
from copy import deepcopy

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from toy import toy_plans

from nnunet_skd.tools import cli
from nnunet_skd.tools.compact.configuration import compact_configuration
from nnunet_skd.tools.compact.cost import network_cost
from nnunet_skd.tools.compact.plans import add_compact_configuration
from nnunet_skd.tools.compact.presets import load_preset, width_preset
from nnunet_skd.tools.errors import BadInput

DATASET_JSON = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "vessel": 1},
    "file_ending": ".nii.gz",
    "numTraining": 4,
}


def architecture(dimension: int, strides: list, residual: bool = False) -> dict:
    """As nnU-Net's planner writes it: 32 features doubled up to 320; in 3D, flat kernels in the first two stages."""
    n = len(strides)
    kernels = [[3] * dimension for _ in strides]
    if dimension == 3:
        kernels[0] = kernels[1] = [1, 3, 3]
    blocks = {"n_blocks_per_stage": [1, 3, 4, 6, 6, 6, 6][:n]} if residual else {"n_conv_per_stage": [2] * n}
    (toy,) = toy_plans(dimension, stages=n, residual=residual)["configurations"].values()
    toy["architecture"]["arch_kwargs"] |= {
        "features_per_stage": [min(320, 32 * 2**i) for i in range(n)],
        "kernel_sizes": kernels,
        "strides": strides,
        **blocks,
        "n_conv_per_stage_decoder": [1 if residual else 2] * (n - 1),
    }
    return toy["architecture"]


def configuration(patch: list[int], median: list[int], strides: list, residual: bool = False, **more) -> dict:
    return {
        "data_identifier": f"nnUNetPlans_{len(patch)}d",
        "spacing": [1.0] * len(patch),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "batch_size": 2,
        "patch_size": patch,
        "median_image_size_in_voxels": median,
        "batch_dice": True,
        "architecture": architecture(len(patch), strides, residual),
        **more,
    }


def make_plans(residual: bool = False) -> dict:
    """2D 320 x 320 (images 300 x 300); an anisotropic 3D plan, 20 x 160 x 160; a cascade on top of it."""
    flat = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]
    return {
        "dataset_name": "Dataset080_CoronaryXA",
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "2d": configuration([320, 320], [300, 300], [[1, 1]] + [[2, 2]] * 6, residual),
            "3d_fullres": configuration([20, 160, 160], [24, 300, 300], flat, residual),
            "3d_lowres": configuration([20, 160, 160], [20, 200, 200], flat, residual, next_stage="3d_cascade_fullres"),
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
    }


@pytest.fixture
def dataset(nnunet_env):
    """A planned, not preprocessed dataset 80; returns the plans file."""
    folder = nnunet_env / "nnUNet_preprocessed" / "Dataset080_CoronaryXA"
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    path = folder / "nnUNetPlans.json"
    path.write_text(json.dumps(make_plans(), indent=4))
    return path


def resolved(plans: dict, name: str, entry: dict):
    plans = deepcopy(plans)
    plans["configurations"][name] = entry
    return PlansManager(plans).get_configuration(name)


def test_half_width_halves_the_channels_and_inherits_the_rest():
    plans = make_plans()
    untouched = deepcopy(plans)
    entry = compact_configuration(plans, "2d", width_preset(0.5))
    assert plans == untouched
    assert entry["inherits_from"] == "2d"
    assert entry["architecture"]["arch_kwargs"]["features_per_stage"] == [16, 32, 64, 128, 160, 160, 160]
    assert set(entry) == {"inherits_from", "patch_size", "architecture"}
    config = resolved(plans, "2d_w050", entry)
    assert config.data_identifier == "nnUNetPlans_2d"
    assert (config.batch_size, config.patch_size, config.batch_dice) == (2, [320, 320], True)


def test_channels_are_multiples_of_eight_and_never_fewer():
    features = compact_configuration(make_plans(), "2d", {"width": 0.1})["architecture"]["arch_kwargs"]
    # 3.2, 6.4, 12.8, 25.6, 32, ... to the nearest multiple of 8
    assert features["features_per_stage"] == [8, 8, 16, 24, 32, 32, 32]


def test_width_equals_the_preset_of_that_name():
    for width, preset in ((0.5, "compact_w050"), (0.25, "compact_w025")):
        assert width_preset(width) == {k: v for k, v in load_preset(preset).items() if k != "description"}


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", ["2d", "3d_fullres", "3d_lowres"])
@pytest.mark.parametrize("preset", ["compact_w050", "compact_w025", "cpu_demo"])
def test_shipped_presets_make_networks_that_run(residual, name, preset):
    plans = make_plans(residual)
    config = resolved(plans, "new", compact_configuration(plans, name, load_preset(preset)))
    with torch.device("meta"):
        network = get_network_from_plans(
            config.network_arch_class_name,
            config.network_arch_init_kwargs,
            config.network_arch_init_kwargs_req_import,
            1,
            2,
            allow_init=False,
            deep_supervision=True,
        )
        outputs = network(torch.empty(2, 1, *config.patch_size))
    strides = config.pool_op_kernel_sizes
    assert len(outputs) == len(strides) - 1 >= 2
    assert list(outputs[0].shape[2:]) == config.patch_size
    # what nnU-Net's loader cuts for each output has the size that the network makes
    size = config.patch_size
    for output, stride in zip(outputs, strides, strict=False):
        size = [n // s for n, s in zip(size, stride, strict=True)]
        assert list(output.shape[2:]) == size


def test_cutting_stages_keeps_the_top_and_the_full_kernel_of_the_bottleneck():
    kwargs = compact_configuration(make_plans(), "3d_fullres", {"max_stages": 3})["architecture"]["arch_kwargs"]
    assert kwargs["n_stages"] == 3
    assert kwargs["strides"] == [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    assert kwargs["kernel_sizes"] == [[1, 3, 3], [1, 3, 3], [3, 3, 3]]
    assert kwargs["features_per_stage"] == [32, 64, 128]
    assert (kwargs["n_conv_per_stage"], kwargs["n_conv_per_stage_decoder"]) == ([2, 2, 2], [2, 2])


def test_bottleneck_kernel_is_full_even_if_no_stage_above_reaches_along_z():
    plans = make_plans()
    kwargs = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    kwargs["kernel_sizes"] = [[1, 3, 3]] * 4 + [[3, 3, 3]]
    cut = compact_configuration(plans, "3d_fullres", {"max_stages": 4})["architecture"]["arch_kwargs"]
    assert cut["kernel_sizes"] == [[1, 3, 3]] * 3 + [[3, 3, 3]]
    assert kwargs["kernel_sizes"] == [[1, 3, 3]] * 4 + [[3, 3, 3]]


def test_cap_on_blocks_of_a_residual_encoder():
    plans = make_plans(residual=True)
    kwargs = compact_configuration(plans, "2d", {"max_convs_per_stage": 2})["architecture"]["arch_kwargs"]
    assert kwargs["n_blocks_per_stage"] == [1, 2, 2, 2, 2, 2, 2]
    assert kwargs["n_conv_per_stage_decoder"] == [1] * 6


def test_features_base_and_maximum():
    preset = {"features_base": 8, "features_max": 24}
    kwargs = compact_configuration(make_plans(), "3d_fullres", preset)["architecture"]["arch_kwargs"]
    assert kwargs["features_per_stage"] == [8, 16, 24, 24, 24]


def test_cpu_demo_cuts_its_patch_where_the_plan_is_flat():
    entry = compact_configuration(make_plans(), "3d_fullres", load_preset("cpu_demo"))
    # z: 20 planned, 24 in the images, 4 voxels at the bottleneck -> the images' 24
    assert entry["patch_size"] == [24, 32, 32]
    assert entry["batch_size"] == 2


def test_patch_is_never_larger_than_plan_and_padded_image():
    plans = make_plans()
    plans["configurations"]["2d"]["median_image_size_in_voxels"] = [300, 330]
    entry = compact_configuration(plans, "2d", {"max_stages": 5, "patch_size": [512, 512]})
    # 16 divides: 300 pads to 304, below the plan's 320; 330 pads to 336
    assert entry["patch_size"] == [320, 336]


@pytest.mark.parametrize(
    ("patch", "stages", "nearest"),
    [([100, 128], 5, r"\[96, 128\]"), ([128, 128], 7, r"\[256, 256\]"), ([120, 120], 5, r"\[128, 128\]")],
)
def test_a_patch_that_does_not_fit_the_strides_names_the_nearest_one_that_does(patch, stages, nearest):
    preset = {"max_stages": stages, "patch_size": patch}
    with pytest.raises(BadInput, match=f"nearest valid size is {nearest}"):
        compact_configuration(make_plans(), "2d", preset)


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ({"max_stages": 2}, "deep supervision needs two outputs"),
        ({"width": 0}, "width is 0"),
        ({"width": 1.5}, "at most 1"),
        (width_preset(float("nan")), "width is NaN"),
        ({"2d": [0.5]}, "2d is .0.5., but it must be an object"),
        ({"widht": 0.5}, "unknown keys in the preset: widht"),
        ({"width": 0.5, "features_max": 64}, "Keep one of them"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"patch_size": [64, 64, 64]}, "2D plans need 2 numbers"),
        ({"3d": {"width": 0.5}}, "has no settings for 2D plans"),
    ],
)
def test_unusable_presets_are_refused(preset, message):
    with pytest.raises(BadInput, match=message):
        compact_configuration(make_plans(), "2d", preset)


def test_unusable_plans_are_refused():
    plans = make_plans()
    with pytest.raises(BadInput, match="They have: 2d, 3d_fullres"):
        compact_configuration(plans, "3d", width_preset(0.5))
    with pytest.raises(BadInput, match="second stage of a cascade"):
        compact_configuration(plans, "3d_cascade_fullres", width_preset(0.5))
    plans["configurations"]["2d"]["architecture"] = architecture(2, [[1, 1], [2, 2]])
    with pytest.raises(BadInput, match="has 2 stages; deep supervision needs 3"):
        compact_configuration(plans, "2d", width_preset(0.5))
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"] = {"embed_dim": 396}
    with pytest.raises(BadInput, match="no resolution stages"):
        compact_configuration(plans, "2d", width_preset(0.5))


def test_a_compact_first_stage_does_not_feed_the_cascade():
    plans = make_plans()
    config = resolved(plans, "3d_lowres_w050", compact_configuration(plans, "3d_lowres", width_preset(0.5)))
    assert config.next_stage_names is None


def test_a_compact_configuration_can_be_made_smaller_again():
    plans = make_plans()
    plans["configurations"]["2d_w050"] = compact_configuration(plans, "2d", width_preset(0.5))
    again = resolved(plans, "2d_w050_w050", compact_configuration(plans, "2d_w050", width_preset(0.5)))
    assert again.network_arch_init_kwargs["features_per_stage"] == [8, 16, 32, 64, 80, 80, 80]
    assert again.data_identifier == "nnUNetPlans_2d"


def test_adding_twice_writes_once_and_a_different_one_is_refused(dataset):
    before = json.loads(dataset.read_text())
    assert add_compact_configuration(80, "2d", "compact_w050") == "2d_w050"
    written = dataset.read_text()
    after = json.loads(written)
    assert after["configurations"].pop("2d_w050")["inherits_from"] == "2d"
    assert after == before and list(after) == list(before)
    os.utime(dataset, (0, 0))
    assert add_compact_configuration("80", "2d", width_preset(0.5)) == "2d_w050"
    assert dataset.stat().st_mtime == 0
    with pytest.raises(BadInput, match="has another configuration '2d_w050'"):
        add_compact_configuration(80, "2d", width_preset(0.75), name="2d_w050")
    assert dataset.read_text() == written
    assert sorted(file.name for file in dataset.parent.iterdir()) == ["dataset.json", "nnUNetPlans.json"]


def test_permissions_and_links_of_the_plans_file_survive(dataset):
    target = dataset.parent.parent / "elsewhere.json"
    dataset.rename(target)
    dataset.symlink_to(target)
    target.chmod(0o664)
    add_compact_configuration(80, "2d", "compact_w050")
    assert dataset.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o664
    assert "2d_w050" in json.loads(target.read_text())["configurations"]
    assert cli.main(["compact", "-d", "80", "-c", "2d", "--width", "0.5"]) == 0


def test_names_and_files_that_cannot_work_are_refused(dataset, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="two underscores"):
        add_compact_configuration(80, "2d", "compact_w050", name="2d__small")
    with pytest.raises(BadInput, match="cannot name a configuration"):
        add_compact_configuration(80, "2d", "compact_w050", name="../2d")
    with pytest.raises(BadInput, match="Presets: compact_w025, compact_w050, cpu_demo"):
        add_compact_configuration(80, "2d", "compact_w100")
    (tmp_path / "nameless.json").write_text('{"width": 0.5}')
    with pytest.raises(BadInput, match="lacks name"):
        add_compact_configuration(80, "2d", str(tmp_path / "nameless.json"))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(BadInput, match="is not JSON"):
        load_preset(str(tmp_path / "broken.json"))
    with pytest.raises(BadInput, match="nnUNetResEncUNetMPlans.json does not exist"):
        add_compact_configuration(80, "2d", "compact_w050", plans_name="nnUNetResEncUNetMPlans")
    with pytest.raises(BadInput, match="dataset with the ID 81"):
        add_compact_configuration(81, "2d", "compact_w050")
    monkeypatch.delenv("nnUNet_preprocessed")
    with pytest.raises(BadInput, match="nnUNet_preprocessed is not set"):
        add_compact_configuration(80, "2d", "compact_w050")


def test_cost_of_a_network_that_can_be_counted_by_hand():
    plans = make_plans()
    plans["configurations"]["2d"] = configuration([16, 16], [16, 16], [[1, 1], [2, 2], [2, 2]])
    kwargs = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    kwargs |= {"features_per_stage": [1, 1, 1], "n_conv_per_stage": [1] * 3, "n_conv_per_stage_decoder": [1] * 2}
    cost = network_cost(plans, DATASET_JSON, "2d")
    # kernels of 3 encoder and 2 decoder convolutions (2 input channels), each with bias, norm weight and norm bias;
    # 2 transposed convolutions of 2x2 with bias; 2 heads from 1 feature to 2 classes with bias
    assert cost["parameters"] == 3 * 9 + 2 * 18 + 5 * 3 + 2 * (4 + 1) + 2 * (2 + 2)
    # positions x kernel x input channels: encoder, transposed convolutions, decoder, last head alone
    encoder, decoder = 9 * (256 + 64 + 16), 18 * (64 + 256)
    assert cost["multiply_adds"] == encoder + 4 * (16 + 64) + decoder + 2 * 256


@pytest.mark.parametrize(("name", "elements", "batch"), [("2d", 85e6, 12), ("3d_fullres", 560e6, 2)])
def test_memory_estimate_is_8_gb_where_nnunets_planner_says_so(name, elements, batch, monkeypatch):
    plans = make_plans()
    plans["configurations"][name]["batch_size"] = batch
    monkeypatch.setattr(PlainConvUNet, "compute_conv_feature_map_size", lambda network, size: elements)
    assert network_cost(plans, DATASET_JSON, name)["memory_gb"] == pytest.approx(8)


def test_command_prints_before_and_after_and_the_next_step(dataset, capsys):
    assert cli.main(["compact", "-d", "80", "-c", "2d", "--width", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "16 32 64 128 160 160 160" in printed
    assert "nnUNetv2_train 80 2d_w050" in printed
    assert cli.main(["compact", "-d", "80", "-c", "2d", "--preset", "nothing"]) == 2
    assert "there is no preset or file 'nothing'" in capsys.readouterr().err
