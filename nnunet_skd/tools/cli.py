"""``nnunet-skd``: one sub-command per module. A module is imported only when its command is called.

Exit status: 0 done; 1 the command says no (a failed check), or the machine failed (a full disk, no memory), or we did;
2 unusable input; 130 stopped, with Ctrl-C as shells expect it, or from outside (SIGTERM, SIGHUP). Whatever ends a
command ends in a message, never in a traceback; ``NNUNET_SKD_TRACEBACK=1`` shows the traceback.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable

from nnunet_skd import __version__
from nnunet_skd.messages import first_line
from nnunet_skd.tools.errors import BadInput, Failed
from nnunet_skd.tools.signals import stopped_as_by_ctrl_c

# Command -> its module below nnunet_skd.tools, and one line about it. The module has add_arguments(parser) and
# run(args) -> exit status (None is 0); its docstring is the command's --help.
COMMANDS = {
    "register": ("install.register", "make nnUNetv2_train -tr find the trainers, without environment variables"),
    "path": ("install.path", "print the folder for nnUNet_extTrainer"),
    "doctor": ("install.doctor", "check that a training could start, and say how to fix it if not"),
    "demo": ("demo.command", "plan, train, predict and evaluate, on phantoms or on your data"),
    "evaluate": ("evaluate.command", "compare predictions with the reference: overlap, surface distance and topology"),
    "compare": ("compare.command", "paired statistics and pictures for two or more trainers: did it help?"),
    "calibrate": ("calibrate.command", "the temperature under which a network's probabilities can be trusted"),
    "speed": ("speed.command", "quality against seconds per case: folds, mirroring, smaller networks"),
    "export": ("export.command", "write a model that nnU-Net alone or ONNX Runtime can predict with"),
    "convert": ("convert.command", "convert a public data set to nnU-Net's raw format"),
    "compact": ("compact.command", "add a smaller configuration to a dataset's plans"),
    "fingerprint": ("fingerprint.command", "nnU-Net's fingerprint where voxels are ignored: intensities of the others"),
    "unlabelled": ("unlabelled.command", "preprocess images without labels, beside a dataset that is preprocessed"),
    "pseudo-labels": ("pseudo_labels.command", "let a finished model label images, and make a dataset to train on"),
    "distill": ("distill.command", "train one network with finished models as its teacher"),
    "bench": ("bench.command", "step time, memory and inference time, as ratios to a reference trainer"),
}
TRACEBACK = "NNUNET_SKD_TRACEBACK"
NNUNET_PROCESSES = "nnUNet_def_n_proc"
DISTRIBUTIONS = {"cc3d": "connected-components-3d", "skimage": "scikit-image", "PIL": "pillow"}  # what pip calls them


def build_parser() -> argparse.ArgumentParser:
    """The top-level parser: it knows the commands' names and one line about each, and imports none of them."""
    lines = "\n".join(f"  {name:14} {line}" for name, (_, line) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="nnunet-skd",
        description="Tools around the self-knowledge distillation trainers for nnU-Net v2.",
        epilog=f"commands:\n{lines}\n\n'nnunet-skd COMMAND --help' explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"nnunet_skd {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="the command's own arguments")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit status, see this module's text."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not what a test or a notebook put in its place
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal, and file names that are not UTF-8
    args = build_parser().parse_args(argv)
    return _guarded(args.command, lambda: _run(args.command, args.arguments))


def _run(command: str, arguments: list[str]) -> int:
    processes = os.environ.get(NNUNET_PROCESSES, "1")
    if not processes.strip().isdecimal():
        raise BadInput(f"{NNUNET_PROCESSES}={processes} is not a number, and nnU-Net cannot start. Correct or unset it")
    module = importlib.import_module(f"nnunet_skd.tools.{COMMANDS[command][0]}")
    parser = argparse.ArgumentParser(
        prog=f"nnunet-skd {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    status = module.run(parser.parse_args(arguments)) or 0
    sys.stdout.flush()  # here, where a full disk or a closed pipe still finds its message
    return status


def _guarded(command: str, action: Callable[[], int]) -> int:
    """Run a command; turn whatever ends it into a message and an exit status."""
    try:
        with stopped_as_by_ctrl_c():
            return action()
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get(TRACEBACK):
            raise
        status, message = _explained(error)
    try:
        print(f"nnunet-skd {command}: {message}", file=sys.stderr, flush=True)
    except OSError:  # nobody reads it
        pass
    _drop_unwritten_output()
    return status


def _explained(error: BaseException) -> tuple[int, str]:
    """The exit status and the message for what ended a command."""
    match error:
        case BadInput():
            return 2, f"error: {error}"
        case Failed():
            return 1, str(error)
        case KeyboardInterrupt():
            return 130, "stopped"
        case BrokenPipeError():
            return 1, "stopped, because what read its output has ended"
        case MemoryError():
            return 1, "error: there is too little memory. Close other programs, or use fewer processes (-np)"
        case RuntimeError() if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
            return 1, "error: the GPU has too little memory. Close other programs on it, or use -device cpu"
        case OSError():
            where = f" ({error.filename})" if error.filename else ""
            return 1, f"error: {error.strerror or first_line(error)}{where}. Fix that, then run the command again"
        case ModuleNotFoundError() if (error.name or "").split(".")[0] != "nnunet_skd":
            name = (error.name or "a package").split(".")[0]
            found = importlib.util.find_spec(name)
            if found is not None and found.origin is None:  # folders without a module
                left = ", ".join(found.submodule_search_locations)
                return 1, f"error: {left} is what an uninstalled {name} left behind, and would hide others. Remove it"
            package = DISTRIBUTIONS.get(name, name)
            return 1, f"error: {name} is not installed in {sys.executable}: {sys.executable} -m pip install {package}"
        case ImportError():  # of a version that does not fit
            return 1, f"error: {first_line(error)}"
    what = f"{type(error).__name__}: {first_line(error)}"
    return 1, f"this is a bug of nnunet-skd, please report it ({what}). {TRACEBACK}=1 shows where it happened"


def _drop_unwritten_output() -> None:
    """Python writes what is left of the output when it ends, and would fail again, with a traceback."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (OSError, ValueError):  # no file behind it
            pass


if __name__ == "__main__":
    sys.exit(main())
