"""For each command: a small input that it takes, and the files that it reads."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from test_convert import arcade
from test_export import trained_model
from test_unlabelled_command import Toy, save_case
from toy import DATASET, toy_dataset_json, toy_plans

from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.install.discovery import trainers_folder

LABELS = {"labels": {"background": 0, "a": 1, "b": 2}, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}

SOME = "preprocessor failed on some cases"
ARMS = ("no reference segmentation for", "the arms hold different cases", "between the arms' validations")


@dataclass
class Scene:
    """``read``: the files that the command reads. Of these, ``images`` must be refused where their end is missing."""

    arguments: list
    read: list[Path]
    images: list[Path] = field(default_factory=list)
    output: str = ""  # the option that names where it writes
    instead: tuple[str, ...] = ()  # what a message names in place of a file that is in order by itself
    keeps: str = ""  # said by a command that keeps what it had completed before a case failed


def _json(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def _segmentation(file: Path, seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    labels = np.random.default_rng(seed).integers(0, 3, (4, 12, 14)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(file))
    return file


def evaluate(env: Path, _) -> Scene:
    files = [_segmentation(env / who / f"{case}.nii.gz") for who in ("ref", "pred") for case in "ab"]
    djfile = _json(env / "dataset.json", LABELS)
    arguments = ["evaluate", env / "ref", env / "pred", "-djfile", djfile, "-np", 1, "--metrics", "Dice", "HD95"]
    return Scene(arguments, [djfile, *files[1:3]], files[1:3], "-o")


def compare_predictions(env: Path, _) -> Scene:
    files = [_segmentation(env / who / f"{case}.nii.gz") for who in ("ref", "one", "two") for case in "ab"]
    djfile = _json(env / "dataset.json", LABELS)
    arguments = ["compare", "--pred", env / "one", env / "two", "--ref", env / "ref", "-djfile", djfile, "-np", 1]
    return Scene([*arguments, "-o", env / "out"], [djfile, files[0], files[5]], [files[0], files[5]], "-o", ARMS)


def compare_trained(env: Path, _) -> Scene:
    (env / "nnUNet_raw" / DATASET).mkdir()
    files = []
    for trainer in ("nnUNetTrainer", "nnUNetTrainerDSKD"):
        model = env / "nnUNet_results" / DATASET / f"{trainer}__nnUNetPlans__2d"
        files.append(_json(model / "dataset.json", LABELS))
        values = {"n_ref": 10, "Dice": 0.5, "IoU": 0.4}
        entries = [{"prediction_file": f"/p/{c}.nii.gz", "metrics": {"1": values, "2": values}} for c in "ab"]
        files.append(_json(model / "fold_0" / "validation" / "summary.json", {"metric_per_case": entries}))
    arguments = ["compare", "-d", DATASET, "-tr", "nnUNetTrainer", "nnUNetTrainerDSKD", "-c", "2d", "-f", 0]
    return Scene([*arguments, "-o", env / "out", "--pictures", 0], files[2:], output="-o", instead=ARMS)


def _planned(env: Path) -> list[Path]:
    folder = env / "nnUNet_preprocessed" / DATASET
    return [_json(folder / "nnUNetPlans.json", toy_plans()), _json(folder / "dataset.json", toy_dataset_json())]


def compact(env: Path, _) -> Scene:
    preset = _json(env / "preset.json", {"name": "small", "features_base": 4, "features_max": 8, "batch_size": 2})
    return Scene(["compact", "-d", DATASET, "-c", "2d", "--preset", preset], [*_planned(env), preset])


def bench(env: Path, patch) -> Scene:
    patch.setattr("nnunet_skd.tools.bench.runs.bench_trainers", _reached)
    arguments = ["bench", "-d", DATASET, "-c", "2d", "-tr", "nnUNetTrainer", "nnUNetTrainerBN", "-device", "cpu"]
    return Scene([*arguments, "--steps", 1, "--cases", 0], _planned(env), output="-o")


def export(env: Path, _) -> Scene:
    model = trained_model()
    files = [model / name for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth")]
    return Scene(["export", "-m", model, "-f", 0, "-o", env / "out.zip"], files, files[2:], "-o", ("not finite",))


def distill(env: Path, patch) -> Scene:
    patch.setattr("nnunet_skd.tools.distill.command.subprocess.run", _reached)
    files = _planned(env)
    splits = [{"train": [f"t{i}" for i in range(4)], "val": ["v"]}]
    files.append(_json(files[0].with_name("splits_final.json"), splits))
    model = env / "nnUNet_results" / DATASET / "nnUNetTrainer__nnUNetPlans__2d"
    files += [_json(model / "plans.json", toy_plans()), _json(model / "dataset.json", toy_dataset_json())]
    (model / "fold_0" / "validation").mkdir(parents=True)
    (model / "fold_0" / "checkpoint_final.pth").touch()
    (model / "fold_0" / "validation" / "v.nii.gz").touch()
    _json(model / "fold_0" / "debug.json", {"enable_deep_supervision": "True"})
    arguments = ["distill", "-d", DATASET, "-c", "2d", "--teacher", model, "-f", 0]
    return Scene(arguments, files, instead=("teach",))


def unlabelled(env: Path, _) -> Scene:
    toy = Toy(env, dim=3)
    save_case(toy.source, "new_0", 3)
    save_case(toy.source, "new_1", 3)
    files = [toy.folder / "nnUNetPlans.json", toy.folder / "dataset.json", toy.source / "new_1_0000.nii.gz"]
    arguments = ["unlabelled", "-d", DATASET, "-i", toy.source, "-c", "3d_fullres", "-np", 1]
    return Scene(arguments, files, files[2:], keeps=SOME, instead=(SOME, "holds no cases", "have no configuration"))


def unlabelled_list(env: Path, _) -> Scene:
    toy = Toy(env)
    save_case(toy.source, "new_0", 2)
    from nnunet_skd.tools.cli import main

    assert main(["unlabelled", "-d", DATASET, "-i", str(toy.source), "-c", "2d", "-np", "1"]) == 0
    record = toy.folder / "unlabelled" / "nnUNetPlans_2d.json"
    return Scene(["unlabelled", "-d", DATASET, "--list", "-c", "2d"], [record])


def convert_arcade(env: Path, _) -> Scene:
    arcade(env / "source")
    annotations = next((env / "source").rglob("test/annotations/*.json"))
    image = sorted((env / "source").rglob("train/images/*.png"))[0]
    return Scene(
        ["convert", "arcade", env / "source", "-d", 84], [annotations, image], [image], instead=("0 json files",)
    )


def demo_data(env: Path, patch) -> Scene:
    _without_training(patch)
    data = env / "Dataset080_X"
    for split, cases in (("Tr", 6), ("Ts", 1)):
        for case in range(cases):
            _segmentation(data / f"images{split}" / f"c{case}_0000.nii.gz")
            _segmentation(data / f"labels{split}" / f"c{case}.nii.gz")
    djfile = _json(data / "dataset.json", LABELS | {"numTraining": 6})
    images = [data / "imagesTr" / "c2_0000.nii.gz", data / "labelsTs" / "c0.nii.gz"]
    return Scene(["demo", "--data", data, "-device", "cpu", "-o", env / "out"], [djfile, *images], images, "-o")


def demo_folders(env: Path, patch) -> Scene:
    _without_training(patch)
    for case in range(7):
        _segmentation(env / "images" / f"c{case}.nii.gz", 1)
        _segmentation(env / "masks" / f"c{case}.nii.gz", 0)
    images = [env / "images" / "c2.nii.gz", env / "masks" / "c3.nii.gz"]
    arguments = ["demo", "--images", env / "images", "--masks", env / "masks", "-device", "cpu", "-o", env / "out"]
    return Scene(arguments, images, images, "-o")


def demo_continued(env: Path, patch) -> Scene:
    scene = demo_data(env, patch)
    from nnunet_skd.tools.cli import main

    assert main([str(a) for a in scene.arguments]) == 2  # reached
    return Scene(scene.arguments, [env / "out" / "demo.json"])


def doctor(env: Path, patch) -> Scene:
    model = trained_model(checkpoint="checkpoint_latest.pth")
    mine = env / "mine"
    mine.mkdir()
    (mine / "module.py").write_text("VALUE = 1\n")
    patch.setenv("nnUNet_extTrainer", f"{trainers_folder()}:{mine}")
    return Scene(["doctor", "-device", "cpu"], [model / "fold_0" / "checkpoint_latest.pth", mine / "module.py"])


def _reached(*_, **__) -> None:
    """What follows takes minutes: the input was taken."""
    raise BadInput("REACHED")


def _without_training(patch) -> None:
    patch.setattr("nnunet_skd.tools.demo.run.check_trainer", lambda *_: None)
    patch.setattr("nnunet_skd.tools.demo.run.Steps", _reached)


SCENES: dict[str, Callable[[Path, object], Scene]] = {
    scene.__name__: scene
    for scene in (
        *(evaluate, compare_predictions, compare_trained, compact, bench, export, distill, unlabelled),
        *(unlabelled_list, convert_arcade, demo_data, demo_folders, demo_continued, doctor),
    )
}
