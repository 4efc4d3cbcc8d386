"""The presets of ``nnunet-skd compact``: found, read and checked."""

from importlib import resources
from pathlib import Path

from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.json_file import POSITIVE_INTEGER, POSITIVE_NUMBER, TEXT, Kind, check_shape, read_json

PRESET_KEYS = {
    "width",
    "features_base",
    "features_max",
    "max_stages",
    "max_convs_per_stage",
    "patch_size",
    "batch_size",
}

_WIDTH = Kind("a number above 0 and at most 1", lambda value: POSITIVE_NUMBER.holds(value) and value <= 1)
_SETTINGS = {f"{key}?": POSITIVE_INTEGER for key in PRESET_KEYS} | {"width?": _WIDTH, "patch_size?": [POSITIVE_INTEGER]}
_PRESET = {**_SETTINGS, "2d?": _SETTINGS, "3d?": _SETTINGS}
_REMEDY = "'nnunet-skd compact --help' explains the keys"


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
    return read_json(str(source), {"name": TEXT, **_PRESET}, _REMEDY)


def width_preset(width: float) -> dict:
    """The preset that only scales the channels: 0.5 becomes {"name": "w050", "width": 0.5}."""
    return {"name": f"w{100 * width:03.0f}", "width": width}


def preset_options(preset: dict, dimension: int) -> dict:
    """The preset's settings for 2D or 3D, checked."""
    check_shape(preset, _PRESET, "the preset", _REMEDY)
    section = preset.get(f"{dimension}d", {})
    common = {k: v for k, v in preset.items() if k not in ("name", "description", "2d", "3d")}
    options = common | section
    if unknown := sorted(set(options) - PRESET_KEYS):
        raise BadInput(f"unknown keys in the preset: {', '.join(unknown)}. Known: {', '.join(sorted(PRESET_KEYS))}")
    if not options:
        raise BadInput(f"the preset has no settings for {dimension}D plans. Add a '{dimension}d' section")
    if "width" in options and ("features_base" in options or "features_max" in options):
        raise BadInput("the preset sets both width and features_base or features_max. Keep one of them")
    if options.get("max_stages", 3) < 3:
        raise BadInput("max_stages must be 3 or more: deep supervision needs two outputs, one per decoder stage")
    if "patch_size" in options and len(options["patch_size"]) != dimension:
        raise BadInput(f"patch_size is {options['patch_size']}, but {dimension}D plans need {dimension} numbers")
    return options
