"""nnU-Net's folders for a measurement, away from the user's."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_skd.compat import with_variables
from nnunet_skd.tools.files import naming_what_is_full
from nnunet_skd.tools.install.discovery import with_our_trainers
from nnunet_skd.tools.nnunet_folders import FINGERPRINT


@contextmanager
def borrowed_plans(plans_file: Path, configuration: str) -> Iterator[Path]:
    """nnU-Net's folders in a temporary place that holds the plans and no image; the user's results stay untouched.

    Yields:
        The temporary folder; results go to `nnUNet_results` in it.
    """
    with tempfile.TemporaryDirectory(prefix="nnunet_skd_bench_") as folder, naming_what_is_full(folder):
        folder = Path(folder)
        dataset = folder / "nnUNet_preprocessed" / plans_file.parent.name
        # nnU-Net infers the file format from the names in this folder; the file is never read.
        images = dataset / PlansManager(str(plans_file)).get_configuration(configuration).data_identifier
        images.mkdir(parents=True)
        (images / "none.b2nd").touch()
        for name in (plans_file.name, "dataset.json"):
            shutil.copyfile(plans_file.with_name(name), dataset / name)
        (dataset / FINGERPRINT).write_text("{}")
        values = {
            "nnUNet_preprocessed": str(folder / "nnUNet_preprocessed"),
            "nnUNet_results": str(folder / "nnUNet_results"),
            "nnUNet_extTrainer": with_our_trainers(),
            "nnUNet_wandb_enabled": "0",
        }
        with with_variables(values):
            yield folder
