"""Add a smaller configuration to a dataset's plans.

The new configuration, such as 2d_w050, inherits from an existing one in nnUNet_preprocessed/DatasetXXX_NAME/PLANS.json
and shares its preprocessed data: nothing has to be preprocessed again. Only the network's width and depth, the patch
size and the batch size change. Afterwards nnU-Net's own commands know it:

  nnunet-skd compact -d 80 -c 2d --width 0.5
  nnUNetv2_train 80 2d_w050 0 -tr nnUNetTrainerDSKD

Parameters, multiply-adds per patch and nnU-Net's memory estimate are printed for both configurations. A different
configuration of the same name is never overwritten; adding the same one again changes nothing.

presets (--preset NAME or a path to your own JSON file):
  compact_w050   half the channels, the same as --width 0.5
  compact_w025   a quarter of the channels, the same as --width 0.25
  cpu_demo       a network and patches small enough to train on two CPU cores

keys of a preset (all optional except "name"; a "2d" or "3d" section overrides the rest for such plans):
  name                 what is appended to the configuration's name
  width                factor on the plan's channels, rounded to multiples of 8
  features_base, features_max   channels of the first stage, doubled from stage to stage up to the maximum
  max_stages           resolution stages to keep, at least 3
  max_convs_per_stage  convolutions per stage to keep (in residual encoders: blocks)
  patch_size           in voxels, reduced where the images are smaller; it must fit the strides
  batch_size           patches per training step
  description          a remark for readers, not used

examples:
  nnunet-skd compact -d 80 -c 2d --preset cpu_demo                        adds 2d_cpu_demo
  nnunet-skd compact -d 81 -c 3d_fullres --width 0.25 -p nnUNetResEncUNetMPlans
  nnunet-skd compact -d 81 -c 3d_fullres --preset mine.json --name 3d_fullres_mine
"""

import argparse

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_skd.tools.compact.cost import network_cost
from nnunet_skd.tools.compact.plans import add_compact_configuration
from nnunet_skd.tools.compact.presets import width_preset
from nnunet_skd.tools.dataset_plans import read_dataset_plans
from nnunet_skd.tools.errors import naming
from nnunet_skd.tools.nnunet_json import read_dataset_json
from nnunet_skd.tools.text_table import aligned


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
    return "\n".join(aligned(list(zip(*columns, strict=True)), left=range(3)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", required=True, metavar="DATASET", help="dataset id or name")
    parser.add_argument("-c", required=True, metavar="CONFIGURATION", help="configuration to start from, such as 2d")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--width", type=float, help="factor on the channels of every stage, above 0 and at most 1")
    size.add_argument("--preset", metavar="NAME_OR_JSON", help="a preset of the package, or a JSON file")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans identifier (default: %(default)s)")
    parser.add_argument("--name", help="name of the new configuration (default: CONFIGURATION_PRESET)")


def run(args: argparse.Namespace) -> None:
    name = add_compact_configuration(args.d, args.c, args.preset or width_preset(args.width), args.p, args.name)
    path, plans = read_dataset_plans(args.d, args.p)
    with naming(path):
        print(_report(plans, read_dataset_json(path.parent / "dataset.json"), (args.c, name)))
    print(f"\n'{name}' is in {path}\nTrain it with: nnUNetv2_train {args.d} {name} FOLD -tr TRAINER -p {args.p}")
