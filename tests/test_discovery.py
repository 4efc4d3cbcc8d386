"""register, path and doctor."""

import os
import shutil
import sys
import sysconfig
from importlib.metadata import PathDistribution
from pathlib import Path
from types import SimpleNamespace

import nnunetv2
import pytest
import torch
from commands import BIN
from torch.torch_version import TorchVersion
from toy import make_trainer, run_epoch

import nnunet_skd.trainers
from nnunet_skd.catalogue import trainer_classes
from nnunet_skd.compat import READS_EXT_TRAINER, TESTED, nnunet_version
from nnunet_skd.tools import cli, commands
from nnunet_skd.tools.cli import main
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.install import discovery, doctor, register
from nnunet_skd.tools.trainers import look_up

by_variable = pytest.mark.skipif(not READS_EXT_TRAINER, reason="nnU-Net reads nnUNet_extTrainer since 2.8")


@pytest.fixture
def empty_nnunet(tmp_path, monkeypatch):
    """A folder tree like nnunetv2's, to write into."""
    (tmp_path / "training" / "nnUNetTrainer").mkdir(parents=True)
    monkeypatch.setattr(discovery, "nnunetv2", SimpleNamespace(__path__=[str(tmp_path)]))
    return tmp_path / "training" / "nnUNetTrainer"


def test_register_is_idempotent_and_remove_takes_everything_away(empty_nnunet, capsys):
    assert register.register() is True
    assert register.register() is False
    assert sorted(p.name for p in (empty_nnunet / "zz_nnunet_skd").iterdir()) == [
        "__init__.py",
        "nnunet_skd_trainers.py",
    ]
    assert main(["register"]) == 0
    assert "Already registered" in capsys.readouterr().out
    assert register.remove() is True
    assert register.remove() is False
    assert list(empty_nnunet.iterdir()) == []


def test_pip_takes_the_shim_away_with_nnunet(empty_nnunet, tmp_path, monkeypatch):
    """What pip leaves of nnunetv2, Python would take for it, before an editable clone that is installed instead."""
    site = tmp_path / "site"
    (site / "nnunetv2" / "training" / "nnUNetTrainer").mkdir(parents=True)
    record = site / "nnunetv2-2.8.1.dist-info" / "RECORD"
    record.parent.mkdir()
    before = "nnunetv2/__init__.py,sha256=abc,0\nnnunetv2-2.8.1.dist-info/RECORD,,\n"
    record.write_text(before)
    (record.parent / "METADATA").write_text("Name: nnunetv2\nVersion: 2.8.1\n")
    monkeypatch.setattr(discovery, "nnunetv2", SimpleNamespace(__path__=[str(site / "nnunetv2")]))
    monkeypatch.setattr(discovery.importlib.metadata, "distribution", lambda _: PathDistribution(record.parent))
    assert register.register() is True and register.register() is False
    lines = record.read_text().removeprefix(before).splitlines()
    assert [line.removesuffix(",,") for line in lines] == [
        p.relative_to(site).as_posix() for p in discovery.shim_files()
    ]
    assert register.remove() is True and record.read_text() == before
    monkeypatch.setattr(discovery, "nnunetv2", SimpleNamespace(__path__=[str(empty_nnunet.parents[1])]))
    assert register.register() is True and record.read_text() == before  # of another nnunetv2


def test_what_an_uninstalled_nnunet_left_is_named(tmp_path, monkeypatch):
    (tmp_path / "left_over" / "training").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    status, message = cli._explained(ModuleNotFoundError("No module named 'left_over.x'", name="left_over.x"))
    assert status == 1 and f"{tmp_path / 'left_over'} is what an uninstalled left_over left behind" in message


def test_register_renews_the_shim_of_another_version(empty_nnunet):
    register.register()
    shim = empty_nnunet / "zz_nnunet_skd" / "nnunet_skd_trainers.py"
    shim.write_text("older")
    assert not discovery.is_registered()
    assert register.register() is True
    assert discovery.is_registered()


@by_variable
def test_a_read_only_nnunet_is_refused_with_the_line_to_use_instead(empty_nnunet, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write anywhere, so the refusal is made here
    with pytest.raises(BadInput, match="Permission denied. Use the environment variable"):
        register.register()
    assert main(["register"]) == 2
    assert f'export nnUNet_extTrainer="{discovery.trainers_folder()}${{nnUNet_extTrainer:+' in capsys.readouterr().err


def test_the_shim_holds_every_trainer(empty_nnunet):
    namespace = {}
    exec(discovery.SHIM, namespace)  # noqa: S102 - the generated module itself
    assert {name for name in namespace if name.startswith("nnUNetTrainer")} == set(trainer_classes())


def test_trainers_of_others_are_found_where_ours_cannot_be_imported(monkeypatch, capsys):
    """nnU-Net imports the shim on its way to theirs."""
    monkeypatch.setitem(sys.modules, "nnunet_skd.catalogue", SimpleNamespace())
    namespace = {}
    exec(discovery.SHIM, namespace)  # noqa: S102 - the generated module itself
    assert "cannot be used (ImportError" in capsys.readouterr().err
    assert not any(name.startswith("nnUNetTrainer") for name in namespace)


@by_variable
def test_path_prints_the_folder(capsys):
    assert main(["path"]) == 0
    assert capsys.readouterr().out.strip() == str(Path(nnunet_skd.trainers.__path__[0]).resolve())


@pytest.fixture
def ready(nnunet_env, make_known, monkeypatch):
    make_known(discovery.trainers_folder())
    monkeypatch.setenv("PATH", f"{Path(doctor.sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def problems(*arguments):
    return [f for f in doctor.examine(*arguments or ("nnUNetTrainerDSKD", "cpu")) if f.level == "problem"]


def test_doctor_is_content_when_a_training_can_start(ready, capsys):
    assert main(["doctor", "-device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "-tr nnUNetTrainerDSKD is" in out
    assert f"found by {'nnUNet_extTrainer' if READS_EXT_TRAINER else 'the registration'}" in out
    assert "A training can start." in out


def test_doctor_takes_a_relative_path_for_this_environment(ready, monkeypatch):
    here = Path(doctor.sys.executable).parent
    monkeypatch.chdir(here.parent)
    monkeypatch.setenv("PATH", f"{here.name}{os.pathsep}{os.environ['PATH']}")
    assert problems() == []


@by_variable
def test_doctor_takes_commands_beside_nnunet_for_its_own(ready, monkeypatch, tmp_path):
    """``pip install --target``; elsewhere they are another environment's."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nnUNetv2_train").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert "belongs to another environment" in problems()[0].text
    monkeypatch.setattr(nnunetv2, "__path__", [str(tmp_path / "nnunetv2"), *nnunetv2.__path__])
    assert not problems()


def about(name: str) -> doctor.Finding:
    (finding,) = [f for f in doctor.examine("nnUNetTrainerDSKD", "cpu") if f.text.startswith(name)]
    return finding


@pytest.mark.parametrize("name", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_doctor_names_a_missing_folder(ready, monkeypatch, name):
    """A training goes without the raw data."""
    level = "hint" if name == "nnUNet_raw" else "problem"
    monkeypatch.setenv(name, "/does/not/exist")
    finding = about(name)
    assert finding.text == f"{name}=/does/not/exist does not exist" and finding.remedy.startswith("mkdir")
    assert finding.level == level
    monkeypatch.delenv(name)
    finding = about(name)
    assert finding.text == f"{name} is not set" and finding.remedy.startswith(f"export {name}=")
    assert finding.level == level and len(problems()) == (level == "problem")


@pytest.mark.parametrize("why", ["is not writable", "MiB left"])
def test_doctor_wants_room_where_a_training_writes(ready, monkeypatch, why):
    if why == "MiB left":
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    else:
        monkeypatch.setattr(doctor.os, "access", lambda folder, mode: False)
    raw, preprocessed, results = map(about, ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"))
    assert (raw.level, preprocessed.level, results.level) == ("ok", "hint", "problem") and why in preprocessed.text


@by_variable
def test_doctor_says_how_to_make_the_trainers_known(ready, monkeypatch, empty_nnunet):
    monkeypatch.delenv("nnUNet_extTrainer")
    finding = next(f for f in problems() if f.text == "nnU-Net cannot find the trainers")
    assert finding.remedy.startswith("nnunet-skd register\nor: export nnUNet_extTrainer=")


def test_doctor_knows_the_catalogue_when_a_name_is_wrong(ready):
    (finding,) = problems("nnUNetTrainerDKSD", "cpu")
    assert "nnUNetTrainerDKSD is not found" in finding.text
    assert "nnUNetTrainerDSKD_250epochs" in finding.remedy


@by_variable
def test_doctor_sees_a_trainer_of_the_same_name_elsewhere(ready, monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerDSKD(nnUNetTrainer): pass\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", f"{tmp_path}{os.pathsep}{discovery.trainers_folder()}")
    (finding,) = problems()
    assert "is not the trainer of this package" in finding.text and "mine.py" in finding.remedy


@by_variable
def test_doctor_finds_a_trainer_in_a_package(ready, monkeypatch, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerDSKD(nnUNetTrainer): pass\n"
    )
    (tmp_path / "a.py").write_text("from mine import nnUNetTrainerDSKD\n")
    monkeypatch.setenv("nnUNet_extTrainer", f"{tmp_path}{os.pathsep}{discovery.trainers_folder()}")
    (finding,) = problems()
    assert f"mine{os.sep}__init__.py" in finding.remedy


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("import a_module_that_nobody_has", "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
        ("class nnUNetTrainerMine: pass", "must inherit"),
        ("class nnUNetTrainerOther: pass", "nnU-Net does not find the trainer nnUNetTrainerMine"),
    ],
)
@by_variable
def test_looking_for_a_trainer_prints_nothing_and_says_what_is_wrong(monkeypatch, tmp_path, capsys, line, reason):
    (tmp_path / "mine.py").write_text(line)
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    with pytest.raises(BadInput, match=reason):
        look_up("nnUNetTrainerMine")
    assert capsys.readouterr().out == ""


@pytest.fixture
def a_gpu(ready, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    properties = SimpleNamespace(name="a GPU", total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setenv("nnUNet_compile", "t")


def test_doctor_refuses_a_gpu_that_does_not_compute(a_gpu, monkeypatch):
    on_cpu = torch.ones

    def ones(*size, device="cpu", **options):
        if device == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available\nCompile with TORCH_USE_CUDA_DSA")
        return on_cpu(*size, device=device, **options)

    monkeypatch.setattr(torch, "ones", ones)
    (finding,) = problems("nnUNetTrainerDSKD", "cuda")
    assert finding.text == "device cuda (a GPU, 8 GiB) does not compute: CUDA error: no kernel image is available"
    assert "nvidia-smi" in finding.remedy and "-device cpu" in finding.remedy


def test_doctor_tries_torch_compile(a_gpu, monkeypatch):
    fails = {True: "Failed to find C compiler.", False: ""}
    monkeypatch.setattr(doctor, "_failure_on_gpu", lambda compiled: fails[compiled])
    (finding,) = problems("nnUNetTrainerDSKD", "cuda")
    assert finding.text.endswith("torch.compile fails: Failed to find C compiler.")
    assert "nnUNet_compile=f" in finding.remedy
    monkeypatch.setenv("nnUNet_compile", "f")
    assert not problems("nnUNetTrainerDSKD", "cuda")


def test_doctor_refuses_a_device_that_is_not_there(ready):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    (finding,) = problems("nnUNetTrainerDSKD", "cuda")
    assert finding.text == "no CUDA device" and "-device cpu" in finding.remedy


def test_doctor_names_a_small_shared_memory(ready, monkeypatch):
    def about(free):
        usage = shutil.disk_usage("/")._replace(free=free)
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage)
        return [f for f in doctor._shared_memory()]

    monkeypatch.setattr(doctor.os.path, "isdir", lambda folder: True)
    assert about(2**33) == []
    (finding,) = about(64 * 2**20)
    assert finding.level == "hint" and "/dev/shm has 64 MiB left" in finding.text and "--ipc=host" in finding.remedy


@pytest.mark.parametrize(
    ("value", "way_out"), [("~/results", '"$HOME/results"'), ("results", '"$PWD/results"')], ids=["tilde", "relative"]
)
def test_doctor_refuses_a_folder_that_depends_on_where_one_is(ready, monkeypatch, value, way_out):
    monkeypatch.setenv("nnUNet_results", value)
    (finding,) = [f for f in doctor._folders() if f.level == "problem"]
    assert finding.remedy == f"export nnUNet_results={way_out}" and "mkdir" not in finding.remedy


def test_doctor_takes_an_environment_that_is_reached_by_a_link(ready, tmp_path, monkeypatch):
    (tmp_path / "current").symlink_to(BIN)
    monkeypatch.setenv("PATH", str(tmp_path / "current"))
    (finding,) = doctor._commands()
    assert finding.level == "ok"
    monkeypatch.setattr(commands.site, "ENABLE_USER_SITE", False)  # as in a venv, where ~/.local is another Python's
    user = Path(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")))
    assert user not in commands.own_folders()
    monkeypatch.setattr(commands.site, "ENABLE_USER_SITE", True)
    assert user in commands.own_folders()


def test_doctor_names_what_apple_gpus_lack(ready, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    remedies = [finding.remedy for finding in doctor.examine("nnUNetTrainerDSKD", "mps")]
    assert "export PYTORCH_ENABLE_MPS_FALLBACK=1" in remedies
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    assert len(doctor.examine("nnUNetTrainerDSKD", "mps")) == len(remedies) - 1


@pytest.mark.skipif(READS_EXT_TRAINER, reason="nnU-Net reads nnUNet_extTrainer since 2.8")
def test_where_nnunet_reads_no_variable_only_register_is_offered(nnunet_env, empty_nnunet, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_extTrainer", str(discovery.trainers_folder()))
    findings = doctor.examine("nnUNetTrainer", "cpu")
    assert any(f.text == "nnU-Net cannot find the trainers" and f.remedy == "nnunet-skd register" for f in findings)
    unread = f"nnU-Net {nnunet_version()} does not read nnUNet_extTrainer"
    assert any(f.level == "hint" and f.text.startswith(unread) for f in findings)
    assert main(["path"]) == 2
    assert unread in capsys.readouterr().err


@pytest.mark.parametrize(
    ("release", "level", "text"),
    [
        ("2.5.2", "problem", "nnunetv2 2.5.2 is too old: the trainers need 2.6.4 or later"),
        ("2.6.4", "ok", "nnunetv2 2.6.4"),
        ("2.9.0", "hint", f"nnunetv2 2.9.0 was not tested with these trainers: {', '.join(TESTED)} were"),
    ],
)
def test_doctor_knows_each_version(ready, monkeypatch, release, level, text):
    monkeypatch.setattr(doctor, "nnunet_version", lambda: release)
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda package: release)
    findings = doctor.examine("nnUNetTrainerDSKD", "cpu")
    assert (level, text) in [(f.level, f.text) for f in findings]
    assert ("problem" in {f.level for f in findings}) == (level == "problem")


def test_doctor_names_a_torch_that_executes_checkpoints(ready, monkeypatch):
    assert not [f for f in doctor.examine("nnUNetTrainerDSKD", "cpu") if "too old" in f.text]
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.5.1"))
    (finding,) = [f for f in doctor.examine("nnUNetTrainerDSKD", "cpu") if "too old" in f.text]
    assert finding.level == "hint" and finding.remedy == 'pip install "torch>=2.6"'
    assert "torch 2.5.1 is too old for the commands that read checkpoints: they need 2.6" in finding.text


@pytest.fixture
def begun(ready) -> Path:
    """A training of which one epoch was saved; returns its fold folder."""
    trainer = make_trainer(trainer_classes()["nnUNetTrainerDSKD_5epochs"])
    trainer.initialize()
    run_epoch(trainer, 0)
    trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    return Path(trainer.output_folder)


def about_going_on(findings):
    return [f for f in findings if "go on" in f.text]


def test_doctor_says_in_one_line_that_a_running_project_can_go_on(begun):
    (finding,) = about_going_on(doctor.examine("nnUNetTrainerDSKD", "cpu"))
    assert finding.level == "ok" and finding.text.startswith(f"with nnunetv2 {nnunet_version()} these can go on")
    assert finding.text.endswith("Dataset900_Toy/nnUNetTrainerDSKD_5epochs__nnUNetPlans__2d/fold_0")
    (begun / "checkpoint_latest.pth").rename(begun / "checkpoint_final.pth")
    assert not about_going_on(doctor.examine("nnUNetTrainerDSKD", "cpu"))


def test_doctor_says_what_must_be_fixed_before_a_running_project_can_go_on(begun, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda folder, mode: False)
    (finding,) = about_going_on(doctor.examine("nnUNetTrainerDSKD", "cpu"))
    assert finding.level == "hint" and finding.text.startswith("once the problems above are fixed these can go on")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trainer_name": "nnUNetTrainerMine"}, "does not find the trainer nnUNetTrainerMine"),
        ("damage", "is not a complete checkpoint"),
    ],
)
def test_doctor_names_a_training_that_cannot_go_on(begun, change, reason):
    file = begun / "checkpoint_latest.pth"
    if change == "damage":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        torch.save(torch.load(file, weights_only=False) | change, file)
    (finding,) = about_going_on(doctor.examine("nnUNetTrainerDSKD", "cpu"))
    assert finding.level == "hint" and str(begun) in finding.text and reason in finding.text


def test_a_trainer_of_ours_that_is_not_registered_is_no_matter_of_spelling(empty_nnunet, monkeypatch):
    def not_found(name):
        raise RuntimeError

    monkeypatch.setattr("nnunet_skd.tools.trainers.find_trainer", not_found)
    with pytest.raises(BadInput, match="nnUNetTrainerDSKD. Make its trainers known: nnunet-skd register"):
        look_up("nnUNetTrainerDSKD")
    with pytest.raises(BadInput, match="Check the spelling"):
        look_up("nnUNetTrainerDKSD")


@pytest.mark.parametrize("case", ["of stock, being written", "of a colleague"])
def test_doctor_does_not_call_a_good_checkpoint_damaged(begun, case, monkeypatch):
    file = begun / "checkpoint_latest.pth"
    if case == "of a colleague":

        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied", str(file))

        monkeypatch.setattr(torch, "load", refuse)
    else:
        file.write_bytes(file.read_bytes()[:1000])
        begun.parent.rename(begun.parents[1] / "nnUNetTrainer__nnUNetPlans__2d")
    assert not about_going_on(doctor.examine("nnUNetTrainerDSKD", "cpu"))


def test_trainings_of_others_are_none_of_the_doctors_business(begun):
    file = begun / "checkpoint_latest.pth"
    checkpoint = torch.load(file, weights_only=False)
    del checkpoint["distillation"]
    torch.save(checkpoint, file)
    assert not about_going_on(doctor.examine("nnUNetTrainerDSKD", "cpu"))


class _Touch:
    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


def test_doctor_executes_nothing_that_a_checkpoint_contains(begun, tmp_path):
    file = begun / "checkpoint_latest.pth"
    content = torch.load(file, weights_only=False)
    torch.save(content | {"extra": _Touch(tmp_path / "was_run")}, file)
    doctor.examine("nnUNetTrainerDSKD", "cpu")
    assert not (tmp_path / "was_run").exists()
