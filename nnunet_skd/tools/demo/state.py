"""What a demo was asked to do and which of its steps are done, so that it can be continued."""

import json
import os
import shutil

from nnunet_skd.tools.errors import BadInput

NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
STATE = "demo.json"
MADE_HERE = (*NNUNET_FOLDERS, "predictions", "logs", "metrics.csv", "demo.png", STATE)


class State:
    """The small file that says what the demo was asked and which steps are done."""

    def __init__(self, path, content):
        self.path, self.content = path, content

    def finished(self, step):
        return bool(self.content.get(step))

    def set(self, key, value):
        self.content[key] = value
        unfinished = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(self.content, indent=4), encoding="utf-8")
        os.replace(unfinished, self.path)


def open_state(out, arguments, overwrite):
    """The state of the demo in ``out``: a new one, or the one there if it was asked the same."""
    path = out / STATE
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file. Choose another folder with -o.")
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        before = content["arguments"]
        if overwrite or "data" not in content:  # without data nothing was made that could be lost
            for name in MADE_HERE:
                target = out / name
                shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        elif before == arguments:
            print(f"Continuing the demo in {out}, on the data as first taken. --overwrite starts anew.")
            return State(path, content)
        else:
            keys = sorted(k for k in before | arguments if before.get(k) != arguments.get(k))
            changes = ", ".join(f"{k} {before.get(k)} there and {arguments.get(k)} now" for k in keys)
            raise BadInput(
                f"{out} holds a demo of other arguments ({changes}). Choose another folder with -o, or --overwrite it."
            )
    elif out.is_dir() and any(out.iterdir()):
        raise BadInput(
            f"{out} is not empty and holds no demo. Nothing in it was touched; choose another folder with -o."
        )
    out.mkdir(parents=True, exist_ok=True)
    state = State(path, {})
    state.set("arguments", arguments)
    return state
