"""The bench: its instruments on known work, real trainers on toy plans, its output. No timing decides a test."""

import json
import os

import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from toy import DATASET, toy_dataset_json, toy_plans

from nnunet_skd.compat import set_variables
from nnunet_skd.model_checks import VARIABLE
from nnunet_skd.tools import cli
from nnunet_skd.tools.bench import command, runs
from nnunet_skd.tools.bench import measure as bench_measure
from nnunet_skd.tools.bench import trainers as bench_trainers
from nnunet_skd.tools.bench.borrowed_plans import borrowed_plans
from nnunet_skd.tools.bench.losses import bench_losses
from nnunet_skd.tools.bench.measure import alternate, paired_ratio, tensor_memory
from nnunet_skd.tools.bench.random_data import random_batch, random_case
from nnunet_skd.tools.bench.report import save
from nnunet_skd.tools.bench.runs import bench
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.evaluate.statistics import quartiles
from nnunet_skd.tools.install.discovery import trainers_folder

CPU = torch.device("cpu")
MIB = 2**20


def plan(folder, plans=None, dataset_json=None):
    """A planned dataset without images; returns its plans file."""
    dataset = folder / "nnUNet_preprocessed" / DATASET
    dataset.mkdir()
    (dataset / "dataset.json").write_text(json.dumps(dataset_json or toy_dataset_json()))
    path = dataset / "nnUNetPlans.json"
    path.write_text(json.dumps(plans or toy_plans()))
    return path


def mebibytes(n: int) -> torch.Tensor:
    return torch.zeros(n * MIB // 4)


def test_memory_counts_what_stays_of_the_build_and_the_peak_of_the_watched_part():
    outside = mebibytes(1)

    def build():
        mebibytes(64)  # freed before the watched part: not its peak
        return mebibytes(4)

    def watched(built):
        large = mebibytes(8)
        del large
        return mebibytes(2)

    built, memory = tensor_memory(build, watched, CPU)
    assert built.numel() == MIB
    assert (memory.peak, memory.end) == (12 * MIB, 6 * MIB)
    assert tensor_memory(lambda: mebibytes(3), lambda built: None, CPU)[1] == (3 * MIB, 3 * MIB)
    del outside


class _StandInForCuda:
    """A device's clock and allocator, in ms and bytes: what PyTorch's would say, on a machine without a GPU."""

    def __init__(self, monkeypatch):
        self.clock = self.allocated = self.peak = 0
        for name in ("Event", "synchronize", "memory_allocated", "max_memory_allocated", "reset_peak_memory_stats"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def synchronize(self):
        pass

    def memory_allocated(self):
        return self.allocated

    def max_memory_allocated(self):
        return self.peak

    def reset_peak_memory_stats(self):
        self.peak = self.allocated

    def allocate(self, size, for_good=False):
        self.peak = max(self.peak, self.allocated + size)
        self.allocated += size * for_good

    def Event(self, enable_timing):
        assert enable_timing
        return _StandInForEvent(self)


class _StandInForEvent:
    def __init__(self, cuda):
        self.cuda, self.time, self.reached = cuda, None, False

    def record(self):
        self.time = self.cuda.clock

    def synchronize(self):
        self.reached = True

    def elapsed_time(self, end):
        assert end.reached  # CUDA raises
        return end.time - self.time


def test_cuda_is_timed_by_its_own_events(monkeypatch):
    cuda, watch = _StandInForCuda(monkeypatch), bench_measure.Stopwatch(torch.device("cuda"))
    start = watch.mark()
    cuda.clock += 7
    end = watch.mark()
    cuda.clock += 5
    assert watch.milliseconds(start, end) == 7


def test_cuda_memory_is_the_peak_of_the_watched_part_above_what_was_there_before(monkeypatch):
    cuda = _StandInForCuda(monkeypatch)
    cuda.allocate(100, for_good=True)

    def build():
        cuda.allocate(500)
        cuda.allocate(30, for_good=True)

    _, memory = tensor_memory(build, lambda _: cuda.allocate(40), torch.device("cuda"))
    assert memory == (30 + 40, 30)


def test_calls_take_turns():
    order = []
    results = alternate([lambda: order.append("a") or 1, lambda: order.append("b") or 2], 3, "test")
    assert order == ["a", "b"] * 3
    assert results == [[1, 1, 1], [2, 2, 2]]


def test_median_quartiles_and_ratios_within_rounds():
    assert quartiles([5, 1, 2, 4, 3]) == {"median": 3, "q1": 2, "q3": 4}
    # a disturbance that hits both of a round cancels
    assert paired_ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == {"median": 2, "q1": 2, "q3": 2}


class _Work(torch.autograd.Function):
    """Takes so many seconds of a fake clock forwards and backwards."""

    @staticmethod
    def forward(ctx, x, clock, there, back):
        ctx.clock, ctx.back = clock, back
        clock[0] += there
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.clock[0] += ctx.back
        return gradient, None, None, None


class _ToyLoss(nn.Module):
    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def forward(self, outputs, target):
        return sum(_Work.apply(output, self.clock, 1, 1.5).sum() for output in outputs[:-1])


class _ToyTrainer:
    """Teacher 5 s; network 7 s there, 11 s back over two stages; losses 2 s there, 3 s back; optimizer 1 s."""

    def __init__(self, clock):
        self.clock = clock
        self.loss = _ToyLoss(clock)
        self.weight = torch.zeros(1, requires_grad=True)
        self.teacher = self._teach

    def _teach(self, data):
        self.clock[0] += 5

    def train_step(self, batch):
        if self.teacher is not None:
            self.teacher(batch["data"])
        low = _Work.apply(self.weight, self.clock, 3, 4)
        high = _Work.apply(low, self.clock, 4, 7)
        self.loss([high, low, self.weight * 1], None).backward()
        self.clock[0] += 1


def toy_arm(clock):
    arm = bench_trainers._Arm.__new__(bench_trainers._Arm)
    arm.trainer, arm.device, arm.batch = _ToyTrainer(clock), CPU, {"data": None}
    arm.watch = bench_measure.Stopwatch(CPU)
    return arm


def test_a_step_is_split_into_teacher_losses_and_rest(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(bench_measure, "perf_counter", lambda: clock[0])
    arm = toy_arm(clock)
    arm._mark_parts()
    expected = {"teacher": 5000, "losses": 5000, "rest": 19000, "step": 29000}
    assert arm.step() == expected
    assert arm.step() == expected


def test_without_a_teacher_and_a_loss_module_everything_is_rest(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(bench_measure, "perf_counter", lambda: clock[0])
    arm = toy_arm(clock)
    arm.trainer.teacher = None
    arm.trainer.loss = arm.trainer.loss.forward
    arm._mark_parts()
    assert arm.step() == {"teacher": 0, "losses": 0, "rest": 24000, "step": 24000}


@pytest.mark.slow
def test_real_trainers_are_measured_and_the_users_folders_stay_as_they_are(nnunet_env, make_known):
    make_known(trainers_folder())
    plan(nnunet_env, toy_plans(patch=64))
    before = dict(os.environ)
    names = ["nnUNetTrainer", "nnUNetTrainer", "nnUNetTrainerDSKD"]
    results = bench(DATASET, "2d", names, device="cpu", steps=2, cases=1)
    assert dict(os.environ) == before
    assert not list((nnunet_env / "nnUNet_results").iterdir())
    files = sorted(path.name for path in (nnunet_env / "nnUNet_preprocessed" / DATASET).iterdir())
    assert files == ["dataset.json", "nnUNetPlans.json"]

    first, again, dskd = results["trainers"]
    assert [r["name"] for r in results["trainers"]] == names
    assert first["ratio"] == first["inference_ratio"] == {"median": 1, "q1": 1, "q3": 1}
    assert again["peak_memory"] == first["peak_memory"]
    assert dskd["peak_memory"] > first["peak_memory"]
    assert first["network_parameters"] == dskd["network_parameters"]
    assert first["teacher_ms"]["median"] == 0 < dskd["teacher_ms"]["median"]
    for r in results["trainers"]:
        assert all(len(r["raw"][f"{part}_ms"]) == 2 for part in ("step", "teacher", "losses", "rest"))
        assert r["losses_ms"]["median"] > 0 and r["inference_s"]["median"] > 0
        for whole, *parts in zip(*(r["raw"][f"{p}_ms"] for p in ("step", "teacher", "losses", "rest")), strict=True):
            assert whole == pytest.approx(sum(parts))
        assert r["voxels_per_s"] == pytest.approx(64 * 64 * r["patches_per_s"])
    json.dumps(results)


@pytest.mark.parametrize("name", ["nnUNetTrainer", "nnUNetTrainerDSKD_unlabelled", "nnUNetTrainer_onlyMirror01"])
def test_predictions_are_mirrored_as_nnunet_would(nnunet_env, make_known, name):
    make_known(trainers_folder())
    path = plan(nnunet_env, toy_plans(dim=3, patch=16))
    with borrowed_plans(path, "3d_fullres") as folder:
        set_variables({"nnUNet_results": str(folder / "nnUNet_results")})
        predictor = bench_trainers._Arm(name, path, "3d_fullres", CPU).predictor()
    assert predictor.use_mirroring
    assert tuple(predictor.allowed_mirroring_axes) == ((0, 1) if name.endswith("01") else (0, 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1])
def test_compiled_trainers_do_not_run_each_others_graphs(nnunet_env, make_known, aot_eager, monkeypatch, order):
    """They share the network's code: what was compiled without ACW-SKD's hook must not serve a network that has it."""
    make_known(trainers_folder())
    monkeypatch.setattr(nnUNetTrainer, "_do_i_compile", lambda self: True)
    names = ["nnUNetTrainer", "nnUNetTrainerDSKD", "nnUNetTrainerDSKD_ACW"][::order]
    path = plan(nnunet_env, toy_plans(patch=16, stages=4))
    results = bench_trainers.bench_trainers(names, path, "2d", CPU, 2, 0)
    assert [r["name"] for r in results] == names


def make_trainer(path, configuration):
    with borrowed_plans(path, configuration):
        trainer = get_trainer_from_args(DATASET, configuration, 0, device=CPU)
        trainer.initialize()
    return trainer


def test_random_batch_is_what_the_loader_of_nnunet_gives(nnunet_env):
    path = plan(nnunet_env, dataset_json=toy_dataset_json(regions=True, ignore=True))
    trainer = make_trainer(path, "2d")
    batch = random_batch(trainer)
    assert batch["data"].shape == (2, 1, 32, 32)
    # two regions and the ignored voxels, at the resolutions of both outputs; each label was drawn
    assert [tuple(t.shape) for t in batch["target"]] == [(2, 3, 32, 32), (2, 3, 16, 16)]
    assert batch["target"][0].float().amax((0, 2, 3)).tolist() == [1, 1, 1]
    with torch.no_grad():
        assert torch.isfinite(trainer.loss(trainer.network(batch["data"]), batch["target"]))


def test_random_batch_of_a_cascade_has_the_previous_stage_as_channels(nnunet_env):
    plans = toy_plans(3, patch=16)
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    trainer = make_trainer(plan(nnunet_env, plans), "3d_cascade_fullres")
    batch = random_batch(trainer)
    assert batch["data"].shape == (2, 1 + 2, 16, 16, 16)
    assert set(batch["data"][:, 1:].unique().tolist()) == {0, 1}
    assert batch["target"][0].unique().tolist() == [0, 1, 2]


def test_random_case_has_the_plans_median_shape(nnunet_env):
    plans = toy_plans()
    plans["configurations"]["2d"]["median_image_size_in_voxels"] = [30.0, 40.0]
    plans["original_median_shape_after_transp"] = [5, 30, 40]
    assert random_case(make_trainer(plan(nnunet_env, plans), "2d")).shape == (1, 5, 30, 40)


def test_borrowed_plans_give_the_environment_back_after_an_error(nnunet_env, monkeypatch):
    path = plan(nnunet_env)
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    monkeypatch.setenv("nnUNet_extTrainer", "/mine")
    before = dict(os.environ)
    with pytest.raises(ZeroDivisionError), borrowed_plans(path, "2d") as folder:
        assert os.environ["nnUNet_wandb_enabled"] == "0"
        assert os.environ["nnUNet_extTrainer"].split(os.pathsep) == [str(trainers_folder()), "/mine"]
        assert folder.is_dir()
        1 / 0  # noqa: B018
    assert dict(os.environ) == before
    assert not folder.exists()


def test_unusable_input_is_refused_before_anything_is_measured(nnunet_env, monkeypatch, tmp_path, capsys):
    plan(nnunet_env)
    monkeypatch.setattr(bench_trainers, "tensor_memory", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="Use -device cpu"):
        bench(DATASET, "2d", ["nnUNetTrainer"])
    with pytest.raises(BadInput, match="no configuration '3d_fullres'. It has: 2d"):
        bench(DATASET, "3d_fullres", ["nnUNetTrainer"], device="cpu")
    with pytest.raises(BadInput, match="does not find the trainer nnUNetTrainerDKSD"):
        bench(DATASET, "2d", ["nnUNetTrainerDKSD"], device="cpu")
    with pytest.raises(BadInput, match="at least 1 step"):
        bench(DATASET, "2d", ["nnUNetTrainer"], device="cpu", steps=0)
    assert cli.main(["bench", "-device", "cpu"]) == 2
    assert "give a dataset and a configuration" in capsys.readouterr().err
    (tmp_path / "bench.png").touch()
    assert cli.main(["bench", "-d", "900", "-c", "2d", "-device", "cpu", "-o", str(tmp_path)]) == 2
    assert "bench.png exists already" in capsys.readouterr().err


def test_teachers_are_named_by_path_or_by_name(nnunet_env, monkeypatch, capsys):
    model = nnunet_env / "nnUNet_results" / DATASET / "nnUNetTrainer__nnUNetPlans__2d"
    model.mkdir(parents=True)
    plan(nnunet_env)
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setattr(command, "bench", lambda *_: {})
    monkeypatch.setattr(command, "trainer_table", lambda _: "")
    asked = ["bench", "-d", "900", "-c", "2d", "-device", "cpu", "--teacher"]
    assert cli.main([*asked, model.name, str(model)]) == 0
    assert os.environ[VARIABLE] == f"{model}{os.pathsep}{model}"
    assert cli.main([*asked, "typo"]) == 2
    assert f"are not folders. Trained models of {DATASET}: {model.name}" in capsys.readouterr().err


def test_what_a_trainer_refuses_is_the_users_message(nnunet_env, make_known):
    make_known(trainers_folder())
    plan(nnunet_env, toy_plans(stages=2))
    with pytest.raises(BadInput, match="at least two deep-supervision outputs"):
        bench(DATASET, "2d", ["nnUNetTrainerDSKD"], device="cpu", steps=1, cases=0)


def known_result(name: str, step: float) -> dict:
    def exactly(value):
        return {"median": value, "q1": value, "q3": value}

    parts = {"teacher": step - 100, "losses": 10.0, "rest": 90.0}
    return {
        "name": name,
        "network_parameters": 7,
        "step_ms": exactly(step),
        **{f"{part}_ms": exactly(value) for part, value in parts.items()},
        "ratio": exactly(step / 100),
        "peak_memory": 3 * MIB,
        "peak_memory_ratio": 1.5,
        "patches_per_s": 4.0,
        "voxels_per_s": 4096.0,
        "inference_s": exactly(0.25),
        "inference_ratio": exactly(1.0),
        "raw": {},
    }


def test_command_prints_the_table_and_writes_three_files(nnunet_env, make_known, monkeypatch, tmp_path, capsys):
    make_known(trainers_folder())
    plan(nnunet_env)
    monkeypatch.setattr(
        runs, "bench_trainers", lambda names, *_: [known_result(n, 100 + 31 * (len(n) > 13)) for n in names]
    )
    output = tmp_path / "out"
    argv = ["bench", "-d", "900", "-c", "2d", "-tr", "nnUNetTrainerDSKD", "-device", "cpu", "-o", str(output)]
    assert cli.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    header, first, second = (line.split() for line in lines[3:6])
    assert header[0] == "trainer" and header[-2:] == ["s/case", "ratio"]
    # nnUNetTrainer was not asked for, and is what the ratios refer to
    assert first[0] == "nnUNetTrainer"
    assert second[:5] == ["nnUNetTrainerDSKD", "131.0", "(131.0", "-", "131.0)"]
    assert second[5:9] == ["1.31", "(1.31", "-", "1.31)"]
    assert second[9:15] == ["0.310", "0.100", "0.900", "3.0", "1.500", "4.00"]
    assert sorted(file.name for file in output.iterdir()) == ["bench.json", "bench.png", "bench.txt"]
    saved = json.loads((output / "bench.json").read_text())
    assert saved["trainers"][1]["name"] == "nnUNetTrainerDSKD"
    assert saved["batch_size"] == 2 and saved["device"] == "cpu"
    assert (output / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "bench.txt").read_text().splitlines() == lines[:6]


@pytest.mark.slow
def test_loss_terms_keep_as_many_buffers_as_the_mathematics_needs(tmp_path):
    results = bench_losses(CPU, rounds=1, sizes={2: 32})
    kept = {r["term"]: r["buffers"] for r in results}
    assert results[0]["term"] == "Dice + CE" and results[0]["ratio"]["median"] == 1
    assert list(kept) == ["Dice + CE", "DDL", "PSDL", "DDL + PSDL", "adversarial"]
    # PSDL: the teacher's probabilities, and the labels in int64, as much as two classes. DDL: the student's
    # probabilities at three outputs, each an eighth of the one before
    assert kept["PSDL"] == pytest.approx(2, abs=0.1)
    assert kept["DDL"] == pytest.approx(1 + 1 / 8 + 1 / 64, abs=0.1)
    assert kept["DDL + PSDL"] == pytest.approx(kept["DDL"] + kept["PSDL"], abs=0.1)
    assert kept["adversarial"] == pytest.approx(1, abs=0.05)
    environment = {"device_name": "x", "torch_compile": False, "torch": "2", "nnunetv2": "2.8"}
    everything = {"steps": 1, "batch_size": 2, "losses": results, **environment}
    save(everything, tmp_path)
    assert "DDL + PSDL" in (tmp_path / "bench.txt").read_text()
