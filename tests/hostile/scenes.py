"""For each command: a small input that it takes, and the files that it reads."""

import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import published
import pytest
import toy_dataset
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from scipy.special import softmax
from toy import DATASET, toy_dataset_json, toy_plans
from toy_models import trained_model
from volumes import write_volume

from nnunet_skd.tools.convert.datasets import btcv, dca1, flare22, synapse, xcad
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.install.discovery import SHIM_PACKAGE, shim_files, trainers_folder
from nnunet_skd.trainers.nnUNetTrainerDistill import nnUNetTrainerDistill

LABELS = {"labels": {"background": 0, "a": 1, "b": 2}, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}

SOME = "preprocessor failed on some cases"
UNPAIRED = ("no image for this", "no reference for this", "the same name or number", ": missing", "was published")
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


def _labels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (4, 12, 14)).astype(np.uint8)


def _segmentation(file: Path, seed: int = 0) -> Path:
    return write_volume(file, _labels(seed))


def evaluate(env: Path, _) -> Scene:
    files = [_segmentation(env / who / f"{case}.nii.gz") for who in ("ref", "pred") for case in "ab"]
    djfile = _json(env / "dataset.json", LABELS)
    arguments = ["evaluate", env / "ref", env / "pred", "-djfile", djfile, "-np", 1, "--metrics", "Dice", "HD95"]
    return Scene(arguments, [djfile, *files[1:3]], files[1:3], "-o")


def calibrate(env: Path, _) -> Scene:
    djfile, files = _json(env / "dataset.json", LABELS), []
    for seed, case in enumerate("ab"):
        logits = np.random.default_rng(9).normal(size=(3, 4, 12, 14)) + 2 * (
            _labels(seed) == np.arange(3).reshape(3, 1, 1, 1)
        )
        files.append(_segmentation(env / "ref" / f"{case}.nii.gz", seed))
        files.append(write_volume(env / "pred" / f"{case}.nii.gz", logits.argmax(0).astype(np.uint8)))
        files.append(env / "pred" / f"{case}.npz")
        np.savez_compressed(files[-1], probabilities=softmax(logits, axis=0).astype(np.float32))
    arguments = ["calibrate", env / "ref", env / "pred", "-djfile", djfile, "-np", 1, "-o", env / "out"]
    return Scene(arguments, [djfile, *files[:3]], files[:3], "-o", ("no .npz beside a", "found: 1"))


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
    patch.setattr("nnunet_skd.tools.distill.command.show_and_run", _reached)
    patch.setattr("nnunet_skd.tools.distill.command.look_up", lambda _: nnUNetTrainerDistill)
    files = _planned(env)
    splits = [{"train": [f"t{i}" for i in range(4)], "val": ["v"]}]
    files.append(_json(files[0].with_name("splits_final.json"), splits))
    model = env / "nnUNet_results" / DATASET / "nnUNetTrainer__nnUNetPlans__2d"
    files += [_json(model / "plans.json", toy_plans()), _json(model / "dataset.json", toy_dataset_json())]
    (model / "fold_0" / "validation").mkdir(parents=True)
    (model / "fold_0" / "checkpoint_final.pth").touch()
    (model / "fold_0" / "validation" / "v.nii.gz").touch()
    _json(model / "fold_0" / "debug.json", {"enable_deep_supervision": "True"})
    arguments = ["distill", "-d", DATASET, "-c", "2d", "--teacher", model, "-f", 0, "-device", "cpu"]
    return Scene(arguments, files, instead=("They differ in", "the student's patch"))


def unlabelled(env: Path, _) -> Scene:
    toy = toy_dataset.Toy(env, dim=3)
    toy_dataset.save_case(toy.source, "new_0", 3)
    toy_dataset.save_case(toy.source, "new_1", 3)
    files = [toy.folder / "nnUNetPlans.json", toy.folder / "dataset.json", toy.source / "new_1_0000.nii.gz"]
    arguments = ["unlabelled", "-d", DATASET, "-i", toy.source, "-c", "3d_fullres", "-np", 1]
    return Scene(arguments, files, files[2:], keeps=SOME, instead=(SOME, "holds no cases", "have no configuration"))


def fingerprint(env: Path, patch) -> Scene:
    patch.setattr("nnunet_skd.tools.fingerprint.annotated.DatasetFingerprintExtractor.run", _reached)
    raw = env / "nnUNet_raw" / DATASET
    for case in "ab":
        write_volume(raw / "imagesTr" / f"{case}_0000.nii.gz", np.full((4, 12, 14), 7, np.int16))
        _segmentation(raw / "labelsTr" / f"{case}.nii.gz")
    files = [_json(raw / "dataset.json", LABELS | {"labels": LABELS["labels"] | {"ignore": 3}})]
    files += [raw / "imagesTr" / "b_0000.nii.gz", raw / "labelsTr" / "a.nii.gz"]
    arguments = ["fingerprint", "-d", DATASET, "-np", 1]
    return Scene(arguments, files, files[1:], instead=("no training cases", "no ignore label"))


def pseudo_labels(env: Path, patch) -> Scene:
    patch.setattr("nnunet_skd.tools.pseudo_labels.command.show_and_run", _reached)
    toy = toy_dataset.prepared(toy_dataset.Toy(env, dim=3))
    model = toy_dataset.model(toy)
    files = [toy.folder / name for name in ("nnUNetPlans.json", "dataset.json", "splits_final.json")]
    files += [model / "plans.json", model / "dataset.json", toy.source / "new_1_0000.nii.gz"]
    arguments = ["pseudo-labels", "-d", DATASET, "-i", toy.source, "--teacher", model, "-t", 181, "-f", 0]
    arguments += ["-np", 1, "-device", "cpu"]
    return Scene(arguments, files, files[-1:], instead=("They differ in", "has no configuration", "is not one of"))


def unlabelled_list(env: Path, _) -> Scene:
    toy = toy_dataset.Toy(env)
    toy_dataset.save_case(toy.source, "new_0", 2)
    from nnunet_skd.tools.cli import main

    assert main(["unlabelled", "-d", DATASET, "-i", str(toy.source), "-c", "2d", "-np", "1"]) == 0
    record = toy.folder / "unlabelled" / "nnUNetPlans_2d.json"
    return Scene(["unlabelled", "-d", DATASET, "--list", "-c", "2d"], [record])


def export_onnx(env: Path, patch) -> Scene:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)

    def write(_, file: Path, *__) -> None:  # for the real one see test_full_disk.py: it takes seconds
        file.write_bytes(bytes(5000))
        _reached()

    patch.setattr("nnunet_skd.tools.export.to_onnx.write_onnx", write)
    scene = export(env, patch)
    return Scene(
        ["export", "-m", scene.read[0].parent, "-f", 0, "--onnx", env / "out.onnx"],
        scene.read,
        scene.images,
        "--onnx",
        scene.instead,
    )


def speed(env: Path, _) -> Scene:
    model = trained_model(nnUNetTrainer)
    files = [model / name for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth")]
    for case in range(2):
        files.append(_segmentation(env / "images" / f"c{case}_0000.nii.gz", case))
        files.append(_segmentation(env / "labels" / f"c{case}.nii.gz", case))
    arguments = ["speed", "--arms", f"one={model}@nomirror", "--images", env / "images", "--ref", env / "labels"]
    arguments += ["-device", "cpu", "-np", 1, "-o", env / "out"]
    instead = ("has no reference for", "cannot predict")
    return Scene(arguments, files[:5], files[2:5], "-o", instead, keeps="What was predicted is kept")


def register(env: Path, patch) -> Scene:
    return _registered(env, patch, ["register"])


def unregister(env: Path, patch) -> Scene:
    return _registered(env, patch, ["register", "--remove"])


def _registered(env: Path, patch, arguments: list) -> Scene:
    """nnunetv2's folder is another one, so that a killed test leaves nothing in the real one."""
    folder = env / SHIM_PACKAGE
    patch.setattr("nnunet_skd.tools.install.discovery.shim_folder", lambda: folder)
    patch.setattr("nnunet_skd.tools.install.register.shim_folder", lambda: folder)
    folder.mkdir()
    for file, text in shim_files().items():
        file.write_text(text and f"# by an earlier version\n{text}")
    return Scene(arguments, list(shim_files()), instead=(SHIM_PACKAGE,))


def convert_arcade(env: Path, _) -> Scene:
    published.arcade(env / "source")
    annotations = next((env / "source").rglob("test/annotations/*.json"))
    image = sorted((env / "source").rglob("train/images/*.png"))[0]
    return Scene(
        ["convert", "arcade", env / "source", "-d", 84], [annotations, image], [image], instead=("0 json files",)
    )


def convert_arcade_segments(env: Path, _) -> Scene:
    published.arcade(env / "source")
    annotations = next((env / "source").rglob("train/annotations/*.json"))
    arguments = ["convert", "arcade", env / "source", "-d", 84, "--segments"]
    return Scene(arguments, [annotations], instead=("0 json files",))


def convert_dca1(env: Path, patch) -> Scene:
    patch.setattr(dca1, "PUBLISHED", 4)
    patch.setattr(dca1, "TRAIN", 3)
    source = published.dca1(env / "source", range(1, 5))
    files = [source / "1.pgm", source / "4_gt.pgm"]
    return Scene(["convert", "dca1", source, "-d", 82], files, files, instead=("dca1_00", *UNPAIRED))


def convert_zip(env: Path, patch) -> Scene:
    source = convert_dca1(env, patch).arguments[2]
    archive = published.zipped(source, env / "DCA1.zip")
    return Scene(["convert", "dca1", archive, "-d", 82], [archive], [archive], instead=("no files at all",))


def convert_tar(env: Path, patch) -> Scene:
    source = convert_dca1(env, patch).arguments[2]
    archive = env / "DCA1.tar.gz"
    with tarfile.open(archive, "w:gz") as opened:
        opened.add(source, source.name)
    return Scene(["convert", "dca1", archive, "-d", 82], [archive], [archive], instead=("no files at all",))


def convert_xcad(env: Path, patch) -> Scene:
    patch.setattr(xcad, "PUBLISHED", 2)
    for name in ("1_36.png", "2_36.png"):
        published.save(env / "XCAD" / "test" / "images" / name, published.grey())
        published.save(env / "XCAD" / "test" / "masks" / name, published.vessel())
    files = [env / "XCAD" / "test" / "images" / "1_36.png", env / "XCAD" / "test" / "masks" / "2_36.png"]
    return Scene(["convert", "xcad", env / "XCAD", "-d", 83], files, files[:1], instead=("xcad_", *UNPAIRED))


def _few_scans(patch) -> None:
    for module in (btcv, synapse):
        patch.setattr(module, "TRAIN", {5, 6})
        patch.setattr(module, "TEST", {1})


def convert_synapse(env: Path, patch) -> Scene:
    _few_scans(patch)
    published.synapse(env / "Synapse")  # skips where h5py is missing
    files = [
        env / "Synapse" / "train_npz" / "case0005_slice001.npz",
        env / "Synapse" / "test_vol_h5" / "case0001.npy.h5",
    ]
    return Scene(["convert", "synapse", env / "Synapse", "-d", 87], files, files, instead=("case000", *UNPAIRED))


def convert_btcv(env: Path, patch) -> Scene:
    _few_scans(patch)
    source = published.btcv(env / "RawData")
    files = [source / "Training" / "img" / "img0005.nii.gz", source / "Training" / "label" / "label0001.nii.gz"]
    return Scene(["convert", "btcv", source, "-d", 88], files, files, instead=UNPAIRED)


def convert_flare22(env: Path, patch) -> Scene:
    patch.setattr(flare22, "PUBLISHED", 2)
    patch.setattr(flare22, "TEST", {2})
    files = []
    for case in ("FLARE22_Tr_0001", "FLARE22_Tr_0002"):
        files.append(_segmentation(env / "FLARE" / "images" / f"{case}_0000.nii.gz", 1))
        files.append(_segmentation(env / "FLARE" / "labels" / f"{case}.nii.gz"))
    return Scene(["convert", "flare22", env / "FLARE", "-d", 89], files[1:3], files[1:3], instead=UNPAIRED)


def convert_m2caiseg(env: Path, _) -> Scene:
    source = published.m2caiseg(env / "m2")
    files = [source / "test" / "images" / "v_4.jpg", source / "trainval" / "groundtruth" / "v_3_gt.png"]
    return Scene(["convert", "m2caiseg", source, "-d", 90], files, files[:1], instead=UNPAIRED)


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
        *(evaluate, calibrate, compare_predictions, compare_trained, compact, bench, export, distill, unlabelled),
        *(fingerprint, pseudo_labels, unlabelled_list, convert_arcade, demo_data, demo_folders, demo_continued, doctor),
        *(export_onnx, speed, register, unregister, convert_arcade_segments, convert_dca1, convert_zip, convert_tar),
        *(convert_xcad, convert_synapse, convert_btcv, convert_flare22, convert_m2caiseg),
    )
}
