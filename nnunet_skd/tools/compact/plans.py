"""How a configuration is added to a dataset's plans file in nnUNet_preprocessed."""

import json
import re

from nnunet_skd.tools.compact.configuration import compact_configuration
from nnunet_skd.tools.compact.cost import network_cost
from nnunet_skd.tools.compact.presets import load_preset
from nnunet_skd.tools.dataset_plans import read_dataset_plans
from nnunet_skd.tools.errors import BadInput, naming
from nnunet_skd.tools.files import write_file
from nnunet_skd.tools.lock import one_run_at_a_time
from nnunet_skd.tools.nnunet_json import read_dataset_json


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
        The new configuration's name. Where the same configuration exists already, nothing is written.

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
    with one_run_at_a_time(read_dataset_plans(dataset, plans_name)[0].parent):
        path, plans = read_dataset_plans(dataset, plans_name)
        with naming(path):
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
        with naming(path):
            network_cost(plans, read_dataset_json(path.parent / "dataset.json"), name)  # whether it can be built at all
        write_file(path, json.dumps(plans, indent=4))
    return name
