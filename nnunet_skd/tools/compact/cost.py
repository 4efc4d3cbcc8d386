"""What a configuration's network costs, from its plans alone."""

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch.utils.flop_counter import FlopCounterMode

from nnunet_skd.messages import first_line
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.networks import require_stock_network
from nnunet_skd.tools.nnunet_json import label_manager

# UNet_reference_val_{2d,3d} of nnU-Net's planners: feature map elements of one sample that fill 8 GB at batch 12 and 2.
REFERENCE_ELEMENTS = {
    "PlainConvUNet": {2: 85e6 * 12, 3: 560e6 * 2},
    "ResidualEncoderUNet": {2: 135e6 * 12, 3: 680e6 * 2},
}


def network_cost(plans: dict, dataset_json: dict, configuration: str) -> dict:
    """What a configuration's network costs, without allocating it.

    Raises:
        BadInput: the network is not one of stock nnU-Net, or cannot be built or run.

    Returns:
        `parameters`; `multiply_adds`, of one forward pass of one patch as at inference; `memory_gb`, nnU-Net's own
        estimate for training with this patch and batch size, NaN for networks that it has no reference for.
    """
    manager = PlansManager(plans)
    config = manager.get_configuration(configuration)
    require_stock_network(config, "compact works with nnU-Net's plain and residual encoder U-Nets")
    try:
        return _measured(manager, config, dataset_json)
    except Exception as error:  # wrong numbers end in whatever the layers raise
        raise BadInput(
            f"the network of configuration {configuration} cannot be built ({first_line(error)}). Plan again with "
            f"nnUNetv2_plan_experiment"
        ) from error


def _measured(manager: PlansManager, config: ConfigurationManager, dataset_json: dict) -> dict:
    channels = determine_num_input_channels(manager, config, dataset_json)
    heads = label_manager(manager, dataset_json).num_segmentation_heads
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
