"""What both kinds of export share: where they may write, and what they say about the origin."""

import os
from importlib.metadata import version
from pathlib import Path

from nnunet_skd import __version__
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.export.source import Fold
from nnunet_skd.tools.files import require_writable


def new_target(output: str | Path, model_folder: str | Path) -> Path:
    """The absolute path to write to.

    Raises:
        BadInput: it exists, its parent folder is missing or cannot be written to, or it lies in the model.
    """
    output = Path(output).absolute()
    if os.path.lexists(output):
        raise BadInput(f"{output} exists, and nothing is overwritten. Move it away, or choose another name")
    if not output.parent.is_dir():
        raise BadInput(f"there is no folder {output.parent}. Create it, or choose another place")
    if Path(model_folder).resolve() in output.resolve().parents:
        raise BadInput(f"{output} lies in the model that is exported, which is only read. Choose another place")
    require_writable(output.parent)
    return output


def provenance(fold: Fold, sha256: str) -> dict[str, str | int | float | bool | None]:
    """Where exported weights come from, in plain types."""
    return {
        "trainer_name": fold.trainer_name,
        "trainer_class_compared": fold.trainer_found,
        "fold": fold.name,
        "checkpoint": fold.file.name,
        "epochs": fold.epochs,
        "temperature": fold.temperature,
        "weights_sha256": sha256,
        "exported_with": {name: version(name) for name in ("nnunetv2", "torch")} | {"nnunet_skd": __version__},
    }
