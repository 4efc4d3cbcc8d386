"""How to use a network without nnU-Net: from a file on disk to a segmentation, in plain types."""

from collections.abc import Sequence

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_skd.tools.checkpoint_file import weights_sha256
from nnunet_skd.tools.export.source import Fold, TrainedModel
from nnunet_skd.tools.export.target import provenance
from nnunet_skd.tools.nnunet_json import channel_names

# What nnU-Net's schemes compute, for a reader without nnU-Net.
NORMALIZATION = {
    "CTNormalization": "clip x to [percentile_00_5, percentile_99_5], then (x - mean) / max(std, 1e-8), "
    "all four from intensity_properties",
    "ZScoreNormalization": "(x - mean) / max(std, 1e-8), mean and std of this channel of this case; with "
    "use_mask_for_norm over the nonzero mask only, and voxels outside it stay 0",
    "NoNormalization": "x",
    "RescaleTo01Normalization": "(x - min) / max(max(x - min), 1e-8), min and max of this channel of this case",
    "RGBTo01Normalization": "x / 255",
}


def describe(model: TrainedModel, fold: Fold, configuration: ConfigurationManager) -> dict:
    """All that a program without nnU-Net needs to go from a file on disk to a segmentation, in plain types."""
    plans, dataset_json, labels = model.plans_manager, model.dataset_json, model.label_manager
    settings = configuration.configuration
    names = channel_names(dataset_json)
    intensities = plans.foreground_intensity_properties_per_channel
    schemes = zip(configuration.normalization_schemes, configuration.use_mask_for_norm, strict=True)
    heads = labels.foreground_regions if labels.has_regions else labels.all_labels
    inputs = [{"channel": index, "name": name} for index, name in enumerate(names.values())]
    if configuration.previous_stage_name is not None:
        inputs += [
            {
                "channel": len(names) + index,
                "name": f"1 where configuration {configuration.previous_stage_name} predicts label {label}, else 0",
            }
            for index, label in enumerate(map(int, labels.foreground_labels))
        ]
    return {
        "dataset": plans.dataset_name,
        "configuration": fold.configuration_name,
        "file_ending": dataset_json["file_ending"],
        "image_reader": plans.plans["image_reader_writer"],
        "input_channels": inputs,
        "preprocessing": {
            "order": [
                "read: axes as image_reader gives them (SimpleITK: z, y, x); a 2d image is one slice",
                "transpose the spatial axes, and the spacing with them, by transpose_forward",
                "nonzero mask: voxels that differ from 0 in some channel, holes filled; crop to its bounding box",
                "normalize each channel",
                "resample to spacing (mm, in the transposed order; a 2d model keeps its first axis as it is) by "
                "splines of the given order; where the largest spacing is over 3 times the smallest, its axis apart "
                "with order_z",
            ],
            "transpose_forward": plans.transpose_forward,
            "spacing": configuration.spacing,
            "normalization": [
                {
                    "channel": index,
                    "scheme": scheme,
                    "formula": NORMALIZATION.get(scheme, "see this class in nnunetv2"),
                    "use_mask_for_norm": use_mask,
                    "intensity_properties": intensities.get(str(index)),
                }
                for index, (scheme, use_mask) in enumerate(schemes)
            ],
            "resampling": {"function": settings["resampling_fn_data"], **settings["resampling_fn_data_kwargs"]},
            **(_of_previous_stage(settings) if configuration.previous_stage_name is not None else {}),
        },
        "sliding_window": {
            "order": [
                "pad with 0 on both sides where the image is smaller than patch_size",
                "shift the window evenly by at most tile_step_size * patch_size; a 2d model runs on each slice of the "
                "first axis",
                "logits of a window: mean over the flips by every subset of mirroring_axes, flipped back",
                "sum windows with a Gaussian weight, sigma = patch_size * gaussian_sigma_scale, and divide by the "
                "sum of the weights; then cut the padding off",
            ],
            "patch_size": configuration.patch_size,
            "tile_step_size": 0.5,
            "gaussian_sigma_scale": 0.125,
            "mirroring_axes": fold.mirroring_axes,  # 0 is the first spatial axis
        },
        "postprocessing": {
            "order": [
                "resample the logits to the shape that the image had after cropping",
                "apply the activation over the channels",
                "for each voxel, "
                + (
                    "go through output_channels in order: where the probability exceeds 0.5 write its label"
                    if labels.has_regions
                    else "write the label of the output channel with the highest probability"
                ),
                "put the result back into the box; outside it is background",
                "transpose the spatial axes by transpose_backward",
            ],
            "resampling": {
                "function": settings["resampling_fn_probabilities"],
                **settings["resampling_fn_probabilities_kwargs"],
            },
            "activation": "sigmoid" if labels.has_regions else "softmax",
            "output_channels": [
                {
                    "channel": index,
                    "name": _label_name(dataset_json["labels"], head),
                    "label": int(labels.regions_class_order[index] if labels.has_regions else head),
                }
                for index, head in enumerate(heads)
            ],
            "transpose_backward": plans.transpose_backward,
        },
        "labels": dataset_json["labels"],
        "regions_class_order": labels.regions_class_order,
        "ignore_label": labels.ignore_label,
        "source": provenance(fold, weights_sha256(fold.weights)),
    }


def _of_previous_stage(settings: dict) -> dict:
    return {
        "previous_stage": "its segmentation is transposed and cropped with the image, resampled as labels, and then "
        "split into channels of 0 and 1",
        "resampling_of_previous_stage": {
            "function": settings["resampling_fn_seg"],
            **settings["resampling_fn_seg_kwargs"],
        },
    }


def _label_name(label_dict: dict[str, int | list[int]], head: int | tuple[int, ...]) -> str:
    """A head is a label, or a region's tuple of labels; dataset.json holds lists."""

    def as_numbers(value: int | Sequence[int]) -> list[int]:
        return [int(number) for number in (value if isinstance(value, (list, tuple)) else [value])]

    return next(name for name, value in label_dict.items() if as_numbers(value) == as_numbers(head))
