"""Files and folders that appear complete or not at all, and lists of names."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from nnunet_skd.messages import in_one_line, listed
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import copy, link, new_files, new_folder, require_folder, scratch_folder, write_file


def fail(path):
    path.write_text("half")
    raise RuntimeError("disk full")


@pytest.mark.parametrize(
    "content", ["new", b"new", lambda path: path.write_text("new")], ids=["text", "bytes", "writer"]
)
def test_a_file_is_written_or_replaced(tmp_path, content):
    file = tmp_path / "a.nii.gz"
    for _ in range(2):
        write_file(file, content)
        assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.nii.gz"]


def test_a_writer_gets_a_path_of_the_same_ending_in_the_same_folder(tmp_path):
    seen = []
    write_file(tmp_path / "a.nii.gz", lambda path: (seen.append(path), path.touch()))
    assert seen[0].name.endswith("a.nii.gz") and seen[0].parent == tmp_path and seen[0] != tmp_path / "a.nii.gz"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "plans.json"
    file.write_text("old")
    with pytest.raises(RuntimeError, match="disk full"):
        write_file(file, fail)
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["plans.json"]


def test_a_link_stays_a_link_and_permissions_are_kept(tmp_path):
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "real.json").chmod(0o640)
    (tmp_path / "link.json").symlink_to("real.json")
    write_file(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "real.json").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "real.json").stat().st_mode) == 0o640


def test_a_folder_appears_at_the_end(tmp_path):
    target = tmp_path / "made" / "out"
    with new_folder(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    assert os.listdir(target) == ["a"] and os.listdir(target.parent) == ["out"]
    ordinary = tmp_path / "ordinary"
    ordinary.mkdir()
    assert target.stat().st_mode == ordinary.stat().st_mode  # not the owner's alone, as temporary folders are


def test_a_failed_folder_vanishes(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out") as folder:
        fail(folder / "a")
    assert os.listdir(tmp_path) == []


def test_a_folder_in_use_is_refused_before_and_after_the_work(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    with new_folder(target) as folder:  # an empty one may be taken
        (folder / "a").touch()
    with pytest.raises(BadInput, match="out exists and is not empty"), new_folder(target):
        pytest.fail("worked in vain")
    (target / "a").unlink()
    with pytest.raises(BadInput, match="out exists and is not empty"), new_folder(target):
        (target / "of_someone_else").touch()
    assert os.listdir(target) == ["of_someone_else"] and os.listdir(tmp_path) == ["out"]


def test_files_move_together_or_not_at_all(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(RuntimeError), new_files(tmp_path) as aside:
        (aside / "a").write_text("new")
        fail(aside / "b")
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"
    with new_files(tmp_path) as aside:
        (aside / "a").write_text("new")
        (aside / "b").write_text("new")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"] and (tmp_path / "a").read_text() == "new"


def test_unusable_folders_are_refused_with_a_way_out(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot write to .*file: .*Choose a folder"), scratch_folder(tmp_path / "file"):
        pytest.fail("made a folder in a file")
    for wrong in ("file", "absent"):
        with pytest.raises(BadInput, match=f"{wrong} is not a folder. Check the path"):
            require_folder(tmp_path / wrong)
    assert require_folder(str(tmp_path)) == tmp_path


def test_long_lists_are_cut_short():
    assert listed([]) == ""
    assert listed("abc") == "a, b, c"
    assert listed(range(4), most=3) == "0, 1, 2 and 1 more"
    assert listed("abc", most=2, between="\n") == "a\nb and 1 more"


def test_an_error_in_one_line():
    assert in_one_line(ValueError("one\n  two\n")) == "one two" and in_one_line(EOFError()) == "EOFError"
    assert in_one_line("long " * 100, 9) == "long long"


@pytest.mark.parametrize("bring", [link, copy])
def test_a_file_is_brought_once_and_never_through_a_link_to_nowhere(tmp_path, bring):
    source, gone, target = tmp_path / "source", tmp_path / "gone", tmp_path / "folder" / "target"
    source.write_text("new")
    target.parent.mkdir()
    target.symlink_to(gone)
    bring(source, target)
    assert target.read_text() == "new" and not gone.exists()
    source.unlink()
    target.unlink()
    target.write_text("there before")
    bring(source, target)
    assert target.read_text() == "there before"


def test_where_links_are_not_allowed_a_file_is_copied_whole_or_not_at_all(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("a required privilege is not held")

    def half(source, target):
        Path(target).write_text("ha")
        raise OSError("the disk is gone")

    (tmp_path / "source").write_text("half")
    monkeypatch.setattr(Path, "symlink_to", refuse)
    with monkeypatch.context() as patched, pytest.raises(OSError, match="the disk is gone"):
        patched.setattr(shutil, "copyfile", half)
        link(tmp_path / "source", tmp_path / "target")
    assert [f.name for f in tmp_path.iterdir()] == ["source"]
    link(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "half"
