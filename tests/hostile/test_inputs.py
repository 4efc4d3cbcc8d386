"""Generated hostile inputs: each file that a command reads is damaged in every way, each output place made useless.

Whatever comes in: exit status 2 or 1 and a message that names the culprit, no traceback, nothing new left behind and
inputs unchanged; or the command takes it. A sample by default; all of them with HOSTILE=all (``make hostile``).
"""

import os
import random
import resource
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest
from damages import damages, remove
from scenes import SCENES
from trees import restore, tree

from nnunet_skd.tools.cli import main

SAMPLE = 24  # of each command's inputs, in `make test`
ALL = os.environ.get("HOSTILE") == "all"
TAKEN = "taken"
KEPT = "kept what was complete"


def outcome(capsys, arguments: list, culprit: list[str], keeps: str = "") -> tuple[str, str]:
    """How a command ended, and what is wrong with that: empty if nothing is."""
    capsys.readouterr()
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as error:
        status = error.code
    printed = capsys.readouterr()
    said = printed.err + printed.out
    if status == 0 or "REACHED" in said:
        return TAKEN, "" if "Traceback" not in said else "a traceback"
    if status not in (1, 2):
        return str(status), f"exit status {status}"
    if "Traceback" in said or "bug of nnunet-skd" in said:
        return str(status), said.strip().splitlines()[-1]
    if not any(name in said for name in culprit):
        return str(status), f"does not name {' or '.join(culprit)}: {printed.err.strip().splitlines()[-1:]}"
    return KEPT if keeps and keeps in said else str(status), ""


def prepared(name: str, env: Path, monkeypatch):
    scene = SCENES[name](env, monkeypatch)
    return scene, tree(env)


@pytest.mark.parametrize("name", SCENES)
def test_every_damaged_file_is_refused_in_a_sentence(nnunet_env, monkeypatch, capsys, name):
    scene, before = prepared(name, nnunet_env, monkeypatch)
    inputs = [(file, *damage) for file in scene.read for damage in damages(file)]
    if not ALL:
        inputs = random.Random(name).sample(inputs, min(SAMPLE, len(inputs)))
    ends, wrong = Counter(), []
    for file, what, damage, keys in inputs:
        whole = file.read_bytes()
        damage(file)
        damaged = tree(nnunet_env)
        culprit = [""] if name == "doctor" else [file.name, *keys, *scene.instead]
        end, problem = outcome(capsys, scene.arguments, culprit, scene.keeps)
        after = tree(nnunet_env)
        if not problem and end not in (TAKEN, KEPT) and after != damaged and name != "doctor":
            problem = f"changed or left behind: {sorted(dict(after.items() ^ damaged.items()))[:4]}"
        if not problem and end == TAKEN and file in scene.images and what.startswith("cut at"):
            problem = "was taken" if int(what.split()[2]) < 0.9 * len(whole) else ""
        ends[end] += 1
        if problem:
            wrong.append(f"{file.name}: {what}: {problem}")
        remove(file)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(whole)
        restore(nnunet_env, before, copy_of(nnunet_env))
    with capsys.disabled():
        print(f"\n{name}: {len(inputs)} inputs, {dict(ends)}")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(inputs)}", *wrong])


def copy_of(env: Path) -> Path:
    return env.with_name(f"{env.name}_scene_as_it_was")


@pytest.fixture(autouse=True)
def _a_copy_of_the_scene(nnunet_env, monkeypatch):
    """Made when the scene is complete."""

    def and_copied(name, env, patch):
        made = real(name, env, patch)
        shutil.copytree(env, copy_of(env), symlinks=True)
        return made

    real = prepared
    monkeypatch.setitem(globals(), "prepared", and_copied)
    yield
    shutil.rmtree(copy_of(nnunet_env), ignore_errors=True)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Where a file grows beyond these bytes, writing fails, as on a full disk."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, unlimited[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


@pytest.mark.parametrize("name", SCENES)
def test_an_output_place_that_cannot_be_used(nnunet_env, monkeypatch, capsys, name):
    scene, before = prepared(name, nnunet_env, monkeypatch)
    wrong, ends = [], Counter()

    def check(what: str, arguments: list, culprit: list[str], limit: Callable = nullcontext) -> None:
        now = tree(nnunet_env)
        with limit():
            end, problem = outcome(capsys, arguments, culprit, scene.keeps)
        if not problem and end not in (TAKEN, KEPT) and tree(nnunet_env) != now:
            problem = f"left behind: {sorted(set(tree(nnunet_env).items()) ^ set(now.items()))[:4]}"
        ends[end] += 1
        if problem:
            wrong.append(f"{what}: {problem}")
        restore(nnunet_env, before, copy_of(nnunet_env))

    check("nothing is wrong", scene.arguments, [""])
    assert ends == {TAKEN: 1} or name == "doctor", wrong  # which says that no training could start here
    if scene.output:
        arguments = list(scene.arguments)
        if scene.output in arguments:
            del arguments[arguments.index(scene.output) : arguments.index(scene.output) + 2]
        places = nnunet_env.with_name(f"{nnunet_env.name}_places")
        places.mkdir()
        (places / "file").write_text("the user's")
        (places / "link.zip").symlink_to(places / "nowhere")
        targets = ["file/below.zip", "file/further/below", "link.zip/below.zip", f"{'x' * 300}.zip"]
        if os.getuid() != 0:
            (places / "closed").mkdir(mode=0o555)
            targets.append("closed/out.zip")
        for target in targets:
            check(target, [*arguments, scene.output, f"{places}/{target}"], [str(places)])
        assert (places / "file").read_text() == "the user's"
        shutil.rmtree(places)
    for size in (0, 1, 100, 3000) if ALL else (0, 100):
        limit = partial(files_of_at_most, size)
        check(f"files of at most {size} bytes", scene.arguments, [str(nnunet_env), "nnunet_skd_bench_"], limit)
    with capsys.disabled():
        print(f"\n{name}: {sum(ends.values())} output places, {dict(ends)}")
    assert not wrong, "\n".join(wrong)
