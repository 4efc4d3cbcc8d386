"""Curves and costs on the pages: from a study's work folder and from bench.json to a table in Markdown."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from curve_logs import DATASET, make_model

from driver.bench import bench_table
from driver.curves import curves_table, file_of, save_curves
from driver.definition import EXPERIMENTS, Arm, Cell, Study
from driver.page import fill
from driver.place import Place, write_whole
from driver.trainings import training_of
from nnunet_skd.tools.errors import BadInput
from study import main

RESULTS = EXPERIMENTS / "results"


def small_study(**changes) -> Study:
    arms = {"stock": Arm(), "ours": Arm("nnUNetTrainerDSKD"), "twice": Arm(steps=2, seeds=(0,))}
    return Study("Does it work?", DATASET, **{"arms": arms, "seeds": (0, 1), "steps": 160, "iterations": 10} | changes)


def write_training(work: Path, study: Study, cell: Cell, curve: list[float], seconds: float) -> None:
    """What the driver leaves of a finished training: its model.json, and nnU-Net's logs."""
    place = Place(work, training_of(study, cell).key)
    model = make_model(place.results / DATASET / "model", {"all": curve}, iterations=10, seconds=seconds)
    write_whole(place.model, json.dumps({"folder": str(model.relative_to(work))}))


def written(work: Path, study: Study) -> None:
    rising = np.linspace(0.05, 0.8, 16)
    for seed in (0, 1):
        write_training(work, study, Cell("stock", 0, seed), list(rising + 0.1 * seed), 30)
        write_training(work, study, Cell("ours", 0, seed), [0.9] * 16, 60)


def test_curves_are_the_means_of_the_finished_trainings(tmp_path):
    study = small_study()
    written(tmp_path, study)
    place = Place(tmp_path, training_of(study, Cell("twice", 0, 0)).key)
    make_model(place.results / DATASET / "model", {"all": [0.1]}, finished=False)  # still running: no model.json
    file = save_curves("toy", study, tmp_path, tmp_path)
    assert file == file_of("toy", tmp_path)
    rows = pd.read_csv(file)
    assert rows.groupby(["arm", "seed"]).size().to_dict() == {(a, s): 16 for a in ("stock", "ours") for s in (0, 1)}

    table = curves_table("toy", study, tmp_path)
    header, _, stock, ours, *_ = table.splitlines()
    assert header.startswith("| pseudo Dice after steps | 20 | 40 | 60 | 80 | 100 | 120 | 140 | 160 |")
    ema = pd.Series(np.linspace(0.05, 0.8, 16)).ewm(alpha=0.1, adjust=False).mean().to_numpy() + 0.05
    values = " | ".join(f"{value:.3f}" for value in ema[1::2])
    end = f"{ema[-1]:.3f} ({ema[-1] - 0.05:.3f} to {ema[-1] + 0.05:.3f})"
    assert (
        stock == f"| stock | {values} | {end} | 160 | 8 |"
    )  # it reaches its own last value last, after 16 half minutes
    assert ours == f"| ours | {' | '.join(['0.900'] * 8)} | 0.900 (0.900 to 0.900) | 10 | 1 |"
    assert "python experiments/study.py curves toy" in table


def test_curves_without_their_trainings_are_refused(tmp_path):
    study = small_study()
    with pytest.raises(BadInput, match="has no curves yet. Run: python experiments/study.py curves toy"):
        curves_table("toy", study, tmp_path)
    with pytest.raises(BadInput, match="no training of toy is finished"):
        save_curves("toy", study, tmp_path, tmp_path)
    write_training(tmp_path, study, Cell("ours", 0, 0), [0.5] * 16, 30)
    save_curves("toy", study, tmp_path, tmp_path)
    with pytest.raises(BadInput, match="no training of the reference, stock"):
        curves_table("toy", study, tmp_path)
    with pytest.raises(BadInput, match="trainings that the study does not have"):
        curves_table("toy", small_study(steps=80), tmp_path)


def test_the_command_prints_the_table_that_the_page_gets(tmp_path, capsys):
    (tmp_path / "toy.py").write_text(
        f"from driver.definition import Arm, Study\n"
        f"STUDY = Study('?', '{DATASET}', {{'stock': Arm()}}, seeds=(0,), steps=160, iterations=10)\n"
    )
    study = small_study(arms={"stock": Arm()}, seeds=(0,))
    write_training(tmp_path, study, Cell("stock", 0, 0), [0.5] * 16, 30)
    folders = ["--work", str(tmp_path), "--results", str(tmp_path)]
    assert main(["curves", str(tmp_path / "toy.py"), *folders]) == 0
    table = capsys.readouterr().out.rpartition("\n\n")[0]
    assert "| stock | 0.500 |" in table and "0.500 (one)" in table
    page = f"<!-- curves: {tmp_path / 'toy.py'} -->\n<!-- end -->\n"
    assert table in fill(page, tmp_path)


def bench_results(**changes) -> dict:
    """As ``nnunet-skd bench`` returns them."""

    def spread(median: float) -> dict:
        return {"median": median, "q1": median - 0.05, "q3": median + 0.05}

    def trainer(name: str, ratio: float, teacher: float) -> dict:
        times = {"step_ms": 200 * ratio, "ratio": ratio, "teacher_ms": teacher, "losses_ms": 20.0}
        memory = {"peak_memory": int(ratio * 100 * 2**20), "peak_memory_ratio": ratio}
        return {"name": name, **{key: spread(value) for key, value in times.items()}, **memory}

    return {
        "dataset": "Dataset080_CoronaryXA",
        "configuration": "2d",
        "patch_size": [128, 128],
        "batch_size": 4,
        "steps": 5,
        "cases": 0,
        "device": "cpu",
        "device_name": "some processor, 1 thread",
        "torch_compile": False,
        "torch": "2.14.1",
        "nnunetv2": "2.8.1",
        "trainers": [trainer("nnUNetTrainer", 1, 0), trainer("nnUNetTrainerDistill", 1.4, 60)],
    } | changes


def test_a_bench_is_a_table_of_ratios_with_its_command(tmp_path):
    write_whole(tmp_path / "bench" / "toy.json", json.dumps(bench_results()))
    table = bench_table("toy", tmp_path)
    assert table.startswith(
        "Dataset080_CoronaryXA, `2d`: batch of 4 patches of 128 x 128. some processor, 1 thread, PyT"
    )
    assert "| nnUNetTrainer | 200 ms | 0.10 | 0.00 | 100 MiB |" in table
    assert "| nnUNetTrainerDistill | 1.40 (1.35 to 1.45) | 0.10 | 0.30 | 1.40 |" in table
    assert table.endswith(
        "`nnunet-skd bench -d 80 -c 2d -tr nnUNetTrainer nnUNetTrainerDistill --teacher MODEL -device cpu --steps 5 "
        "--cases 0`"
    )
    assert fill("<!-- bench: toy -->\nold\n<!-- end -->\n", tmp_path) == f"<!-- bench: toy -->\n{table}\n<!-- end -->\n"
    with pytest.raises(BadInput, match=r"other.json is missing. Measure it \(nnunet-skd bench"):
        bench_table("other", tmp_path)


def test_a_table_names_the_commit_that_runs_its_study():
    commits = json.loads((RESULTS / "commits.json").read_text())
    assert {f"{name}.csv" for name in commits} <= {file.name for file in RESULTS.glob("*.csv")}
    assert "--raw DIR` with commit c88eed3\n" in (EXPERIMENTS.parent / "docs" / "results.md").read_text()


@pytest.mark.parametrize("page", ["cost.md", "results.md"])
def test_the_pages_say_what_the_results_say(page):
    text = (EXPERIMENTS.parent / "docs" / page).read_text(encoding="utf-8")
    assert fill(text, RESULTS) == text, "run make results"
