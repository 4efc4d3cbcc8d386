"""What a configuration's network costs, from its plans alone."""

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.utils.flop_counter import FlopCounterMode

# UNet_reference_val_{2d,3d} of nnU-Net's planners: feature map elements of one sample that fill 8 GB at batch 12 and 2.
REFERENCE_ELEMENTS = {
    "PlainConvUNet": {2: 85e6 * 12, 3: 560e6 * 2},
    "ResidualEncoderUNet": {2: 135e6 * 12, 3: 680e6 * 2},
}


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
