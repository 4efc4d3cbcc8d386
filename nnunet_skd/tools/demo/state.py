"""What a demo was asked to do and which of its steps are finished, so that it can be continued."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_skd.messages import differences
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.files import missing_folders, remove_empty, write_file
from nnunet_skd.tools.json_file import FOLDER_NAME, TEXT, read_json

NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
STATE = "demo.json"
UNLABELLED_IMAGES = "images_without_labels"
MADE_HERE = (*NNUNET_FOLDERS, UNLABELLED_IMAGES, "predictions", "logs", "metrics.csv", "demo.png", STATE)


class State:
    """The small file that says what the demo was asked and which steps are done."""

    def __init__(self, path: Path, content: dict[str, Any], made: Sequence[Path] = ()):
        self.path, self.content, self._made = path, content, made

    def finished(self, step: str) -> bool:
        return bool(self.content.get(step))

    def give_up(self) -> None:
        """Leave nothing behind, as long as there is nothing but this file: it is needed to go on."""
        if all(path == self.path for path in self.path.parent.iterdir()):
            self.path.unlink(missing_ok=True)
            remove_empty(list(self._made))

    def set(self, key: str, value: Any) -> None:
        self.content[key] = value
        write_file(self.path, json.dumps(self.content, indent=4))


def open_state(out: Path, arguments: dict[str, str], overwrite: bool) -> State:
    """The state of the demo in ``out``: a new one, or the one that is there if it was given the same arguments.

    Raises:
        BadInput: ``out`` is a file, holds a demo of other arguments, or holds something else.
    """
    path = out / STATE
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file. Choose another folder with -o.")
    if path.is_file():
        remedy = "It was damaged: choose another -o, or remove the demo's folder"
        content = read_json(path, {"arguments": {str: TEXT}, "data?": FOLDER_NAME}, remedy)
        before = content["arguments"]
        if overwrite or "data" not in content:  # before there is data, nothing can be lost
            for name in MADE_HERE:
                target = out / name
                shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        elif before == arguments:
            print(f"Continuing the demo in {out}, with the data that it started with. --overwrite starts anew.")
            return State(path, content)
        else:
            changes = "; ".join(differences(before, arguments))
            raise BadInput(f"{out} holds a demo with other arguments ({changes}). Choose another -o, or --overwrite.")
    elif out.is_dir() and any(out.iterdir()):
        raise BadInput(
            f"{out} is not empty and does not hold a demo (no {STATE}). Nothing in it was "
            "changed. Choose another folder with -o."
        )
    made = missing_folders(out)
    out.mkdir(parents=True, exist_ok=True)
    state = State(path, {}, made)
    try:
        state.set("arguments", arguments)
    except BaseException:
        state.give_up()
        raise
    return state
