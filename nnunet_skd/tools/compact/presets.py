"""The presets of ``nnunet-skd compact``: found, read and checked."""

from importlib import resources
from pathlib import Path

from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.json_file import NUMBER, POSITIVE_INTEGER, TEXT, read_json

PRESET_KEYS = {
    "width",
    "features_base",
    "features_max",
    "max_stages",
    "max_convs_per_stage",
    "patch_size",
    "batch_size",
}

_SETTINGS = {f"{key}?": POSITIVE_INTEGER for key in PRESET_KEYS} | {"width?": NUMBER, "patch_size?": [POSITIVE_INTEGER]}


def load_preset(name_or_path: str) -> dict:
    """A preset of this package by name, or a JSON file by path.

    Raises:
        BadInput: no such preset or file, or not a JSON object with a "name" in it.
    """
    shipped = {
        file.name.removesuffix(".json"): file
        for file in resources.files("nnunet_skd.plans").iterdir()
        if file.name.endswith(".json")
    }
    source = shipped.get(name_or_path, Path(name_or_path))
    if not source.is_file():
        raise BadInput(f"there is no preset or file '{name_or_path}'. Presets: {', '.join(sorted(shipped))}")
    remedy = "'nnunet-skd compact --help' explains the keys"
    return read_json(str(source), {"name": TEXT, **_SETTINGS, "2d?": _SETTINGS, "3d?": _SETTINGS}, remedy)


def width_preset(width: float) -> dict:
    """The preset that only scales the channels: 0.5 becomes {"name": "w050", "width": 0.5}."""
    return {"name": f"w{100 * width:03.0f}", "width": width}


def preset_options(preset: dict, dimension: int) -> dict:
    """The preset's settings for 2D or 3D, checked."""
    section = preset.get(f"{dimension}d", {})
    if not isinstance(section, dict):
        raise BadInput(f"the preset's '{dimension}d' is {section!r}, but it must be an object with settings")
    common = {k: v for k, v in preset.items() if k not in ("name", "description", "2d", "3d")}
    options = common | section
    if unknown := sorted(set(options) - PRESET_KEYS):
        raise BadInput(f"unknown keys in the preset: {', '.join(unknown)}. Known: {', '.join(sorted(PRESET_KEYS))}")
    if not options:
        raise BadInput(f"the preset has no settings for {dimension}D plans. Add a '{dimension}d' section")
    if "width" in options and ("features_base" in options or "features_max" in options):
        raise BadInput("the preset sets both width and features_base or features_max. Keep one of them")
    if "width" in options and not (NUMBER.holds(options["width"]) and 0 < options["width"] <= 1):
        raise BadInput(f"width is {options['width']!r}, but it must be above 0 and at most 1")
    for key in ("features_base", "features_max", "max_stages", "max_convs_per_stage", "batch_size"):
        if key in options and not POSITIVE_INTEGER.holds(options[key]):
            raise BadInput(f"{key} is {options[key]!r}, but it must be a positive whole number")
    if options.get("max_stages", 3) < 3:
        raise BadInput("max_stages must be 3 or more: deep supervision needs two outputs, one per decoder stage")
    patch = options.get("patch_size")
    if patch is not None and not (
        isinstance(patch, list) and len(patch) == dimension and all(map(POSITIVE_INTEGER.holds, patch))
    ):
        raise BadInput(f"patch_size is {patch!r}, but it must be a list of {dimension} positive whole numbers")
    return options
