"""``nnunet-skd``: one sub-command per module. A module is imported only when its command is called."""

import argparse
import importlib
import sys

from nnunet_skd import __version__
from nnunet_skd.tools.errors import BadInput

# Command -> its module below nnunet_skd.tools, and one line about it. The module has add_arguments(parser) and
# run(args) -> exit status (None is 0); its docstring is the command's --help.
COMMANDS = {
    "register": ("install.register", "make nnUNetv2_train -tr find the trainers, without environment variables"),
    "path": ("install.path", "print the folder for nnUNet_extTrainer"),
    "doctor": ("install.doctor", "check that a training could start, and say how to fix it if not"),
    "demo": ("demo.command", "plan, train, predict and evaluate, on phantoms or on your data"),
    "evaluate": ("evaluate.command", "compare predictions with the reference: overlap, surface distance and topology"),
    "compare": ("compare.command", "paired statistics and pictures for two or more trainers: did it help?"),
    "speed": ("speed.command", "quality against seconds per case: folds, mirroring, smaller networks"),
    "export": ("export.command", "write a model that nnU-Net alone or ONNX Runtime can predict with"),
    "convert": ("convert.command", "convert a public data set to nnU-Net's raw format"),
    "compact": ("compact.command", "add a smaller configuration to a dataset's plans"),
    "unlabelled": ("unlabelled.command", "preprocess images without labels, beside a dataset that is preprocessed"),
    "distill": ("distill.command", "train one network with finished models as its teacher"),
    "bench": ("bench.command", "step time, memory and inference time, as ratios to a reference trainer"),
}


def build_parser() -> argparse.ArgumentParser:
    """The top-level parser: it knows the commands' names and one line about each, and imports none of them."""
    lines = "\n".join(f"  {name:10} {line}" for name, (_, line) in COMMANDS.items())
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
    """Run one command.

    Returns:
        Exit status: 0 success, 1 the command says no (a failed check), 2 unusable input.
    """
    args = build_parser().parse_args(argv)
    module = importlib.import_module(f"nnunet_skd.tools.{COMMANDS[args.command][0]}")
    parser = argparse.ArgumentParser(
        prog=f"nnunet-skd {args.command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    try:
        return module.run(parser.parse_args(args.arguments)) or 0
    except BadInput as error:
        print(f"nnunet-skd {args.command}: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
