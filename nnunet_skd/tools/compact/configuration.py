"""Make a smaller configuration from one in a plans file."""

import json
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_skd.tools.compact.presets import preset_options
from nnunet_skd.tools.errors import BadInput

# Tensor cores need channels in multiples of eight, and instance norm works poorly with fewer than eight.
CHANNEL_STEP = 8
# UNet_featuremap_min_edge_length of nnU-Net's planner: an axis is not pooled below this many voxels.
MIN_BOTTLENECK_EDGE = 4


def compact_configuration(plans: dict, configuration: str, preset: dict) -> dict:
    """The entry of a smaller configuration for `plans["configurations"]`; `plans` stays as it is.

    It inherits from `configuration` and holds what differs. The architecture is written out in full because nnU-Net
    replaces it as a whole, and the patch size always, because it only fits these strides.

    Args:
        plans: contents of a plans file of nnU-Net.
        configuration: the configuration to start from; may itself inherit.
        preset: see `nnunet-skd compact --help`; `name` and `description` are ignored here.

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
    options = preset_options(preset, dimension=len(base["patch_size"]))
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


def _resolve(plans: dict, configuration: str) -> dict:
    if configuration not in plans["configurations"]:
        known = ", ".join(plans["configurations"])
        raise BadInput(f"the plans have no configuration '{configuration}'. They have: {known}")
    return PlansManager(plans).get_configuration(configuration).configuration


def _compact_architecture(architecture: dict, options: dict) -> dict:
    """The architecture entry with fewer stages, channels and convolutions; every list keeps fitting the others."""
    kwargs = architecture["arch_kwargs"]
    if not {"n_stages", "features_per_stage", "kernel_sizes", "strides"} <= set(kwargs):
        raise BadInput(
            f"{architecture['network_class_name']} has no resolution stages to remove. compact works with"
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


def _cut(value: Any, before: int, stages: int) -> Any:
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
            f"patch_size {wanted} does not fit the {len(strides)} stages: edges must be multiples of"
            f" {factors.tolist()} and at least {smallest.tolist()}. The nearest valid size is {nearest.tolist()};"
            " fewer stages (max_stages) allow smaller patches"
        )
    padded_image = factors * np.ceil(np.array(base["median_image_size_in_voxels"]) / factors).astype(int)
    return np.minimum(wanted, np.maximum(planned, padded_image)).tolist()
