"""The demo's trainings, each with its prediction of the test cases."""

from pathlib import Path

from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id

from nnunet_skd.tools.demo.processes import Steps


class Trainings:
    """Trains networks one after the other, and predicts the test cases with each.

    Attributes:
        models: folder of the fold, by the training's name.
        predictions: folder of nnUNetv2_predict, by the training's name.
    """

    def __init__(self, step: Steps, out: Path, images: Path, trainer: str, configuration: str, device: str):
        self.step, self.out, self.images = step, out, images
        self.trainer, self.configuration, self.device = trainer, configuration, device
        self.models: dict[str, Path] = {}
        self.predictions: dict[str, Path] = {}

    def add(self, name: str, dataset: str, fold: str) -> Path:
        """Train on a dataset, from the checkpoint in the fold's folder if one is there; returns that folder."""
        suffix = "" if name == self.trainer else f"_{name.replace(' ', '_')}"
        number = str(convert_dataset_name_to_id(dataset))
        model = self.out / "nnUNet_results" / dataset / f"{self.trainer}__nnUNetPlans__{self.configuration}"
        self.models[name] = folder = model / f"fold_{fold}"
        self.predictions[name] = predicted = self.out / "predictions" / suffix[1:]
        train = ["nnUNetv2_train", number, self.configuration, fold, "-tr", self.trainer, "-device", self.device]
        if not self.step.state.finished(f"train{suffix}") and any(folder.glob("checkpoint_*.pth")):
            train.append("--c")  # interrupted, or begun by pseudo-labels
        title = f"Training of {self.trainer}, fold {fold} (nnU-Net reports after each epoch of 250 steps)"
        self.step(f"train{suffix}", title, train)
        self.step(
            f"predict{suffix}",
            "Prediction of the test cases",
            ["nnUNetv2_predict", "-i", str(self.images), "-o", str(predicted), "-d", number, "-c", self.configuration]
            + ["-tr", self.trainer, "-f", fold, "-device", self.device, "-npp", "1", "-nps", "1"],
        )
        return folder
