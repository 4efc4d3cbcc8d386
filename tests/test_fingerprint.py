"""`nnunet-skd fingerprint` on tiny images with an ignore label, beside nnU-Net's own fingerprint."""

import json
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from commands import run
from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from toy import DATASET, toy_dataset_json
from toy_dataset import RNG, save

from nnunet_skd.tools import cli
from nnunet_skd.tools.fingerprint import annotated
from nnunet_skd.tools.fingerprint.annotated import COPIES

PROPERTIES = "foreground_intensity_properties_per_channel"
IGNORE = 3


@pytest.fixture
def threads(monkeypatch):
    """nnU-Net's extractor works in threads, each process would import nnU-Net for seconds, and takes few samples."""
    real = DatasetFingerprintExtractor.__init__

    def few_samples(self, *arguments):
        real(self, *arguments)
        self.num_foreground_voxels_for_intensitystats = 1e5

    monkeypatch.setattr(DatasetFingerprintExtractor, "__init__", few_samples)
    monkeypatch.setattr(
        fingerprint_extractor,
        "multiprocessing",
        SimpleNamespace(get_context=lambda _: SimpleNamespace(Pool=ThreadPool)),
    )


def dataset(env: Path, dim: int = 3, *, ignore: bool = True, regions: bool = False, only: int | None = None) -> Path:
    """Two cases, annotated in one slice of four (in 2D: one row of four); annotated voxels are bright, others dark."""
    raw, ending = env / "nnUNet_raw" / DATASET, ".nii.gz" if dim == 3 else ".png"
    for case in ("one", "two"):
        shape = (12, 16, 20)[:dim]
        annotated = np.zeros(shape, bool)
        annotated[::4] = True
        voxels = np.where(annotated, RNG.integers(100, 200, shape), RNG.integers(1, 50, shape))
        label = np.where(annotated, RNG.integers(0, 3, shape) if only is None else only, IGNORE if ignore else 0)
        save(raw / "imagesTr" / f"{case}_0000{ending}", voxels.astype(np.uint8), (1.0, 2.0, 3.0))
        save(raw / "labelsTr" / f"{case}{ending}", label.astype(np.uint8), (1.0, 2.0, 3.0))
    description = toy_dataset_json(ignore=ignore, regions=regions) | {"file_ending": ending}
    (raw / "dataset.json").write_text(json.dumps(description))
    return raw


def made(env: Path) -> dict:
    return json.loads((env / "nnUNet_preprocessed" / DATASET / "dataset_fingerprint.json").read_text())


def content(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_intensities_are_those_of_annotated_voxels_and_all_else_is_nnunets(nnunet_env, threads, capsys, dim, regions):
    raw = dataset(nnunet_env, dim, regions=regions)
    before = content(raw)
    theirs = DatasetFingerprintExtractor(DATASET, 1).run()
    assert theirs[PROPERTIES][0]["min"] < 50 and theirs[PROPERTIES][0]["mean"] < 100
    assert cli.main(["fingerprint", "-d", "900", "-np", "1"]) == 0
    ours = made(nnunet_env)
    for same in ("spacings", "shapes_after_crop", "median_relative_size_after_cropping"):
        assert np.array_equal(ours[same], theirs[same])
    statistics = ours[PROPERTIES]["0"]
    assert 100 <= statistics["min"] < statistics["percentile_00_5"] + 5 < statistics["mean"] < statistics["max"] < 200
    assert f"CT: mean {statistics['mean']:.5g}, std {statistics['std']:.5g}" in capsys.readouterr().out
    assert content(raw) == before
    assert [file.name for file in (nnunet_env / "nnUNet_preprocessed" / DATASET).iterdir()] == [
        "dataset_fingerprint.json"
    ]


def test_they_are_what_nnunet_finds_where_the_rest_is_background(nnunet_env, threads):
    raw = dataset(nnunet_env)
    assert cli.main(["fingerprint", "-d", DATASET, "-np", "1"]) == 0
    ours = made(nnunet_env)
    for file in (raw / "labelsTr").iterdir():
        image = nibabel.load(file)
        label = np.asarray(image.dataobj)
        save(file, np.where(label == IGNORE, 0, label).astype(np.uint8), (1.0, 2.0, 3.0))
    theirs = DatasetFingerprintExtractor(DATASET, 1).run(overwrite_existing=True)
    assert ours[PROPERTIES]["0"] == theirs[PROPERTIES][0]


def test_plans_of_other_intensities_are_named(nnunet_env, threads, capsys):
    dataset(nnunet_env)
    folder = nnunet_env / "nnUNet_preprocessed" / DATASET
    folder.mkdir(exist_ok=True)
    theirs = {"0": {"mean": -265.0, "std": 138.0, "percentile_00_5": -900.0, "percentile_99_5": 200.0}}
    schemes = {"ours": "CTNormalization", "old": "CTNormalization", "mri": "ZScoreNormalization"}
    for name, scheme in schemes.items():
        plans = {"configurations": {"2d": {"normalization_schemes": [scheme]}}, PROPERTIES: theirs}
        (folder / f"{name}.json").write_text(json.dumps(plans))
    early = {"configurations": plans["configurations"] | {"2d": {"normalization_schemes": ["CTNormalization"]}}}
    (folder / "none.json").write_text(json.dumps(early))
    (folder / "early.json").write_text(json.dumps(early | {"foreground_intensity_properties_by_modality": theirs}))
    assert cli.main(["fingerprint", "-d", "900", "-np", "1"]) == 0
    (folder / "ours.json").write_text(json.dumps(json.loads((folder / "ours.json").read_text()) | made(nnunet_env)))
    capsys.readouterr()
    assert cli.main(["fingerprint", "-d", "900", "-np", "1"]) == 0
    said = capsys.readouterr().out
    for name in ("old", "early"):
        assert f"{name} was planned with other intensities:\n  CT: mean -265, std 138, " in said
    assert not [name for name in ("mri", "ours", "none") if f"{name} was" in said] and "plan each again" in said


@pytest.mark.slow
def test_nnunets_planning_takes_the_fingerprint_that_it_finds(nnunet_env):
    dataset(nnunet_env)
    run("nnunet-skd", "fingerprint", "-d", "900", "-np", "2")
    run("nnUNetv2_plan_and_preprocess", "-d", "900", "--no_pp", nnUNet_n_proc_DA="1")
    plans = json.loads((nnunet_env / "nnUNet_preprocessed" / DATASET / "nnUNetPlans.json").read_text())
    assert plans[PROPERTIES] == made(nnunet_env)[PROPERTIES]
    assert plans[PROPERTIES]["0"]["min"] >= 100


def test_copies_of_a_killed_run_go_and_two_runs_do_not_meet(nnunet_env, threads, capsys, monkeypatch):
    dataset(nnunet_env)
    folder = nnunet_env / "nnUNet_preprocessed" / DATASET
    (folder / f"{COPIES}x").mkdir(parents=True)
    (folder / f"{COPIES}x" / "one.nii.gz").touch()
    real, at_once = annotated.for_each_case, []

    def meanwhile(*arguments):
        at_once.append(cli.main(["fingerprint", "-d", "900", "-np", "1"]) if not at_once else 0)
        return real(*arguments)

    monkeypatch.setattr(annotated, "for_each_case", meanwhile)
    assert cli.main(["fingerprint", "-d", "900", "-np", "1"]) == 0 and at_once == [2]
    assert "another run works in" in capsys.readouterr().err
    assert [file.name for file in folder.iterdir()] == ["dataset_fingerprint.json"]


def refusal(capsys, *said: str) -> None:
    assert cli.main(["fingerprint", "-d", DATASET, "-np", "1"]) == 2
    message = capsys.readouterr().err
    assert all(words in message for words in said)


def test_what_it_cannot_use_is_refused_and_an_older_fingerprint_stays(nnunet_env, threads, capsys):
    raw = dataset(nnunet_env, ignore=False)
    refusal(capsys, DATASET, "no ignore label", "nnUNetv2_extract_fingerprint")
    dataset(nnunet_env, only=0)
    folder = nnunet_env / "nnUNet_preprocessed" / DATASET
    refusal(capsys, "background or ignored")
    assert not folder.exists()
    dataset(nnunet_env)
    folder.mkdir()
    (folder / "dataset_fingerprint.json").write_text('"old"')
    image = raw / "imagesTr" / "two_0000.nii.gz"
    image.write_bytes(image.read_bytes()[:-40])
    refusal(capsys, image.name, "damaged")
    (raw / "labelsTr" / "one.nii.gz").unlink()
    refusal(capsys, "one.nii.gz")
    for file in (raw / "imagesTr").iterdir():
        file.unlink()
    refusal(capsys, "no training cases")
    assert made(nnunet_env) == "old"
    assert [file.name for file in folder.iterdir()] == ["dataset_fingerprint.json"]


def test_an_image_that_nnunet_cannot_use_is_refused(nnunet_env, threads, capsys):
    raw = dataset(nnunet_env)
    save(raw / "imagesTr" / "two_0000.nii.gz", np.ones((30, 30, 30), np.uint8))
    refusal(capsys, "nnU-Net's fingerprint", "--verify_dataset_integrity")
