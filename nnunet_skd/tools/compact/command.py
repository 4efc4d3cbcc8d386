"""Add a smaller configuration to a dataset's plans.

The new configuration, such as 2d_w050, inherits from an existing one in nnUNet_preprocessed/DatasetXXX_NAME/PLANS.json
and shares its preprocessed data: nothing has to be preprocessed again. Only the network's width and depth, the patch
size and the batch size change. Afterwards nnU-Net's own commands know it:

  nnunet-skd compact -d 80 -c 2d --width 0.5
  nnUNetv2_train 80 2d_w050 0 -tr nnUNetTrainerDSKD

Parameters, multiply-adds per patch and nnU-Net's memory estimate are printed before and after. A configuration of
the same name that differs is never overwritten; adding the same one again changes nothing.

presets (--preset NAME or a path to your own JSON file):
  compact_w050   half the channels, the same as --width 0.5
  compact_w025   a quarter of the channels, the same as --width 0.25
  cpu_demo       a network and patches small enough to train on two CPU cores

keys of a preset (all optional but "name"; a "2d" or "3d" section overrides the rest for that kind of plan):
  name                 what is appended to the configuration's name
  width                factor on the plan's channels, rounded to multiples of 8
  features_base, features_max   channels of the first stage, doubled from stage to stage up to the maximum
  max_stages           resolution stages to keep, at least 3
  max_convs_per_stage  convolutions (encoder of residual plans: blocks) per stage to keep
  patch_size           voxels, cut where the images are smaller; it has to fit the strides
  batch_size           patches per training step

examples:
  nnunet-skd compact -d 80 -c 2d --preset cpu_demo                        adds 2d_cpu_demo
  nnunet-skd compact -d 81 -c 3d_fullres --width 0.25 -p nnUNetResEncUNetMPlans
  nnunet-skd compact -d 81 -c 3d_fullres --preset mine.json --name 3d_fullres_mine
"""

import argparse
import json
import os
import re
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.utils.flop_counter import FlopCounterMode

from nnunet_skd.tools.errors import BadInput

# Tensor cores want channels in eights, and fewer than eight leave instance norm little to work with.
CHANNEL_STEP = 8
# UNet_featuremap_min_edge_length of nnU-Net's planner: an axis is not pooled below this many voxels.
MIN_BOTTLENECK_EDGE = 4
# UNet_reference_val_{2d,3d} of nnU-Net's planners: feature map elements of one sample that fill 8 GB at batch 12 and 2.
REFERENCE_ELEMENTS = {
    "PlainConvUNet": {2: 85e6 * 12, 3: 560e6 * 2},
    "ResidualEncoderUNet": {2: 135e6 * 12, 3: 680e6 * 2},
}
PRESET_KEYS = {
    "width",
    "features_base",
    "features_max",
    "max_stages",
    "max_convs_per_stage",
    "patch_size",
    "batch_size",
}


def load_preset(name_or_path: str) -> dict:
    """A preset of this package by name, or a JSON file by path.

    Raises:
        BadInput: no such preset or file, or no JSON object with a "name" in it.
    """
    shipped = {
        file.name.removesuffix(".json"): file
        for file in resources.files("nnunet_skd.plans").iterdir()
        if file.name.endswith(".json")
    }
    source = shipped.get(name_or_path, Path(name_or_path))
    if not source.is_file():
        raise BadInput(f"there is no preset or file '{name_or_path}'. Presets: {', '.join(sorted(shipped))}")
    try:
        preset = json.loads(source.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"'{name_or_path}' is not valid JSON: {error}") from error
    if not isinstance(preset, dict) or not isinstance(preset.get("name"), str):
        raise BadInput(f"'{name_or_path}' needs a \"name\": the text appended to the configuration's name")
    return preset


def width_preset(width: float) -> dict:
    """The preset that only scales the channels: 0.5 becomes {"name": "w050", "width": 0.5}."""
    return {"name": f"w{100 * width:03.0f}", "width": width}


def compact_configuration(plans: dict, configuration: str, preset: dict) -> dict:
    """The entry of a smaller configuration for `plans["configurations"]`; `plans` stays as it is.

    It inherits from `configuration` and holds what differs. The architecture is written out in full because nnU-Net
    replaces it as a whole, and the patch size always, because it only fits these strides.

    Args:
        plans: contents of a plans file of nnU-Net.
        configuration: the configuration to start from; may itself inherit.
        preset: see the module's text; `name` and `description` are ignored here.

    Raises:
        BadInput: unknown configuration, unusable preset, a cascade's second stage, or a network without stages.
    """
    base = _resolve(plans, configuration)
    if base.get("previous_stage") is not None:
        raise BadInput(
            f"{configuration} is the second stage of a cascade: it trains on predictions that {base['previous_stage']}"
            " writes for the configurations named in its 'next_stage' only, so a new second stage would find none."
            " Make 3d_fullres or 3d_lowres compact instead"
        )
    options = _options(preset, dimension=len(base["patch_size"]))
    architecture = _compact_architecture(base["architecture"], options)
    entry = {
        "inherits_from": configuration,
        "patch_size": _patch_size(base, architecture["arch_kwargs"]["strides"], options.get("patch_size")),
        "architecture": architecture,
    }
    if "batch_size" in options:
        entry["batch_size"] = options["batch_size"]
    if base.get("next_stage") is not None:
        # The cascade reads the predictions of the full-size network; exporting ours would only cost time.
        entry["next_stage"] = None
    return json.loads(json.dumps(entry))


def add_compact_configuration(
    dataset: int | str, configuration: str, preset: dict | str, plans_name: str = "nnUNetPlans", name: str | None = None
) -> str:
    """Add a compact configuration to a dataset's plans file in nnUNet_preprocessed.

    Args:
        dataset: id or full name.
        configuration: the configuration to start from, such as `2d`.
        preset: a dict, or a name or path for `load_preset`.
        plans_name: nnU-Net's plans identifier.
        name: of the new configuration; None appends the preset's name.

    Returns:
        The new configuration's name. Where the same configuration is there already, nothing is written.

    Raises:
        BadInput: as `compact_configuration`; no plans file; or a configuration of that name that differs.
    """
    if isinstance(preset, str):
        preset = load_preset(preset)
    name = name or f"{configuration}_{preset['name']}"
    if "__" in name or not re.fullmatch(r"[\w.-]+", name):
        raise BadInput(
            f"'{name}' cannot name a configuration: nnU-Net makes a folder of it and separates names by two"
            " underscores. Use letters, digits, '.', '-' and single underscores"
        )
    path = plans_file(dataset, plans_name)
    plans = json.loads(path.read_text(encoding="utf-8"))
    entry = compact_configuration(plans, configuration, preset)
    existing = plans["configurations"].get(name)
    if existing == entry:
        return name
    if existing is not None:
        raise BadInput(
            f"{path} has another configuration '{name}'. Nothing was changed: give the new one another --name,"
            " or remove the old one from that file if no model needs it"
        )
    plans["configurations"][name] = entry
    _write_json(plans, path)
    return name


def network_cost(plans: dict, dataset_json: dict, configuration: str) -> dict:
    """What a configuration's network costs, without allocating it.

    Returns:
        `parameters`; `multiply_adds`, of one forward pass of one patch as at inference; `memory_gb`, nnU-Net's own
        estimate for training with this patch and batch size, NaN for networks that it has no reference for.
    """
    manager = PlansManager(plans)
    config = manager.get_configuration(configuration)
    channels = determine_num_input_channels(manager, config, dataset_json)
    heads = manager.get_label_manager(dataset_json).num_segmentation_heads
    with torch.device("meta"):
        network = get_network_from_plans(
            config.network_arch_class_name,
            config.network_arch_init_kwargs,
            config.network_arch_init_kwargs_req_import,
            channels,
            heads,
            allow_init=False,
            deep_supervision=False,
        ).eval()
        patch = torch.empty(1, channels, *config.patch_size)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(patch)
    kind = config.network_arch_class_name.rsplit(".", 1)[-1]
    memory = float("nan")
    if kind in REFERENCE_ELEMENTS:
        elements = config.batch_size * float(network.compute_conv_feature_map_size(config.patch_size))
        memory = 8 * elements / REFERENCE_ELEMENTS[kind][len(config.patch_size)]
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "multiply_adds": counter.get_total_flops() // 2,
        "memory_gb": memory,
    }


def plans_file(dataset: int | str, plans_name: str) -> Path:
    """A dataset's plans file in nnUNet_preprocessed, beside its dataset.json.

    Raises:
        BadInput: nnUNet_preprocessed is not set, no such dataset, or one of the two files is missing.
    """
    if not nnUNet_preprocessed.is_set():
        raise BadInput("nnUNet_preprocessed is not set. Export it as for nnUNetv2_plan_and_preprocess")
    try:
        folder = Path(nnUNet_preprocessed) / maybe_convert_to_dataset_name(dataset)
    except (RuntimeError, ValueError) as error:
        raise BadInput(str(error)) from error
    path = folder / f"{plans_name}.json"
    for file in (path, folder / "dataset.json"):
        if not file.is_file():
            raise BadInput(
                f"{file} does not exist. Run nnUNetv2_plan_and_preprocess -d {dataset} first, or name the plans with -p"
            )
    return path


def _resolve(plans: dict, configuration: str) -> dict:
    if configuration not in plans["configurations"]:
        known = ", ".join(plans["configurations"])
        raise BadInput(f"the plans have no configuration '{configuration}'. They have: {known}")
    return PlansManager(plans).get_configuration(configuration).configuration


def _options(preset: dict, dimension: int) -> dict:
    """The preset's settings for 2D or 3D, checked."""
    section = preset.get(f"{dimension}d", {})
    if not isinstance(section, dict):
        raise BadInput(f"the preset's '{dimension}d' is {section!r}, but has to be an object with settings")
    common = {k: v for k, v in preset.items() if k not in ("name", "description", "2d", "3d")}
    options = common | section
    if unknown := sorted(set(options) - PRESET_KEYS):
        raise BadInput(f"unknown keys in the preset: {', '.join(unknown)}. Known: {', '.join(sorted(PRESET_KEYS))}")
    if not options:
        raise BadInput(f"the preset says nothing about {dimension}D plans; add a '{dimension}d' section")
    if "width" in options and ("features_base" in options or "features_max" in options):
        raise BadInput("the preset sets width and features_base or features_max; keep one of the two ways")
    if "width" in options and not (_is_number(options["width"]) and 0 < options["width"] <= 1):
        raise BadInput(f"width is {options['width']!r}, but has to lie above 0 and at most at 1")
    for key in ("features_base", "features_max", "max_stages", "max_convs_per_stage", "batch_size"):
        if key in options and not (isinstance(options[key], int) and options[key] >= 1):
            raise BadInput(f"{key} is {options[key]!r}, but has to be a positive whole number")
    if options.get("max_stages", 3) < 3:
        raise BadInput("max_stages has to be 3 or more: deep supervision needs two outputs, one per decoder stage")
    patch = options.get("patch_size")
    if patch is not None and not (
        isinstance(patch, list) and len(patch) == dimension and all(isinstance(n, int) and n > 0 for n in patch)
    ):
        raise BadInput(f"patch_size is {patch!r}, but has to be a list of {dimension} positive whole numbers")
    return options


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _compact_architecture(architecture: dict, options: dict) -> dict:
    """The architecture entry with fewer stages, channels and convolutions; every list keeps fitting the others."""
    kwargs = architecture["arch_kwargs"]
    if "n_stages" not in kwargs or "features_per_stage" not in kwargs:
        raise BadInput(
            f"{architecture['network_class_name']} has no resolution stages that could be cut; compact works with"
            " nnU-Net's plain and residual encoder U-Nets"
        )
    before = kwargs["n_stages"]
    stages = min(before, options.get("max_stages", before))
    if stages < 3:
        raise BadInput(f"the plans' network has {before} stages; deep supervision needs 3 or more. Use larger patches")
    kwargs = {key: _cut(value, before, stages) for key, value in kwargs.items()}
    kwargs["n_stages"] = stages
    if stages < before and isinstance(kwargs["kernel_sizes"], list):
        # nnU-Net gives the bottleneck full kernels even where the stages above are flat.
        kwargs["kernel_sizes"][-1] = architecture["arch_kwargs"]["kernel_sizes"][-1]
    kwargs["features_per_stage"] = _features(kwargs["features_per_stage"], stages, options)
    cap = options.get("max_convs_per_stage")
    for key in ("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder"):
        if cap is not None and key in kwargs:
            kwargs[key] = np.minimum(kwargs[key], cap).tolist()
    return architecture | {"arch_kwargs": kwargs}


def _cut(value, before: int, stages: int):
    """One entry per stage, or per decoder stage (one fewer): the first ones stay. Anything else stays as it is."""
    if isinstance(value, (list, tuple)) and len(value) in (before, before - 1):
        return list(value[: len(value) - (before - stages)])
    return value


def _features(planned: int | list[int], stages: int, options: dict) -> list[int]:
    planned = [planned] * stages if isinstance(planned, int) else planned
    if "width" in options:
        return [_round_channels(n * options["width"]) for n in planned]
    base = options.get("features_base")
    features = planned if base is None else [base * 2**i for i in range(stages)]
    return [min(n, options.get("features_max", max(planned))) for n in features]


def _round_channels(channels: float) -> int:
    return max(CHANNEL_STEP, CHANNEL_STEP * int(channels / CHANNEL_STEP + 0.5))


def _patch_size(base: dict, strides: list, wanted: list[int] | None) -> list[int]:
    """The preset's patch, no larger than plan and images justify, or the plan's; checked against the strides."""
    planned = [int(n) for n in base["patch_size"]]
    if wanted is None:
        # It fits: the plan's own strides, of which the remaining ones are a part, divide it.
        return planned
    factors = np.prod([np.broadcast_to(s, len(planned)) for s in strides], axis=0)
    smallest = np.where(factors > 1, MIN_BOTTLENECK_EDGE * factors, 1)
    nearest = np.maximum(smallest, factors * (np.array(wanted) / factors + 0.5).astype(int))
    if nearest.tolist() != wanted:
        raise BadInput(
            f"patch_size {wanted} does not fit the {len(strides)} stages: edges have to be multiples of"
            f" {factors.tolist()} and at least {smallest.tolist()}. The nearest valid size is {nearest.tolist()};"
            " fewer stages (max_stages) allow smaller patches"
        )
    padded_image = factors * np.ceil(np.array(base["median_image_size_in_voxels"]) / factors).astype(int)
    return np.minimum(wanted, np.maximum(planned, padded_image)).tolist()


def _write_json(content: dict, path: Path) -> None:
    """Replace a file, or what a link points to, at once, keeping its permissions."""
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content, indent=4), encoding="utf-8")
        shutil.copymode(path, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _report(plans: dict, dataset_json: dict, names: tuple[str, str]) -> str:
    """A table: one column for the configuration that was there, one for the new one."""
    columns = [["", "patch size", "batch size", "stages", "channels", "parameters", "multiply-adds per patch"]]
    columns[0].append("nnU-Net's memory estimate")
    for name in names:
        config = PlansManager(plans).get_configuration(name)
        cost = network_cost(plans, dataset_json, name)
        features = config.network_arch_init_kwargs["features_per_stage"]
        columns.append(
            [
                name,
                " x ".join(map(str, config.patch_size)),
                str(config.batch_size),
                str(config.network_arch_init_kwargs["n_stages"]),
                " ".join(map(str, features)) if isinstance(features, list) else str(features),
                f"{cost['parameters'] / 1e6:.2f} M",
                f"{cost['multiply_adds'] / 1e9:.2f} G",
                f"{cost['memory_gb']:.2f} GB",
            ]
        )
    widths = [max(map(len, column)) for column in columns]
    rows = zip(*columns, strict=True)
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", required=True, metavar="DATASET", help="dataset id or name")
    parser.add_argument("-c", required=True, metavar="CONFIGURATION", help="configuration to start from, such as 2d")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--width", type=float, help="factor on the channels of every stage, above 0 and at most 1")
    size.add_argument("--preset", metavar="NAME_OR_JSON", help="a preset of the package, or a JSON file")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans identifier (default: %(default)s)")
    parser.add_argument("--name", help="name of the new configuration (default: CONFIGURATION_PRESET)")


def run(args: argparse.Namespace) -> int:
    preset = load_preset(args.preset) if args.preset else width_preset(args.width)
    name = add_compact_configuration(args.d, args.c, preset, args.p, args.name)
    path = plans_file(args.d, args.p)
    plans = json.loads(path.read_text(encoding="utf-8"))
    dataset_json = json.loads((path.parent / "dataset.json").read_text(encoding="utf-8"))
    print(_report(plans, dataset_json, (args.c, name)))
    print(f"\n'{name}' is in {path}\nTrain it with: nnUNetv2_train {args.d} {name} FOLD -tr TRAINER -p {args.p}")
    return 0
