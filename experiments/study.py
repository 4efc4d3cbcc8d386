"""Run the studies behind docs/results.md, look at them, and make the page's tables of them.

  python experiments/study.py run noise_floor --raw DIR      the trainings that are missing; again after any kill
  python experiments/study.py status noise_floor             what is done, and what is missing
  python experiments/study.py table noise_floor              the tables of the rows so far
  python experiments/study.py curves noise_floor             how its trainings went, from the logs in --work
  python experiments/study.py page docs/results.md           all tables between a page's markers

DIR is the folder of nnU-Net's raw datasets. Models and predictions go to --work, one CSV per study to
experiments/results, its curves to experiments/results/curves. experiments/README.md says how a study is written.

Exit status: 0 done; 1 a training failed, the others went on; 2 unusable input.
"""

import argparse
import os
import sys
from pathlib import Path

from driver.definition import EXPERIMENTS, load_study
from nnunet_skd.tools.errors import BadInput


def main(arguments: list[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        return args.command(args)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in (("run", _run), ("status", _status), ("table", _table), ("curves", _curves)):
        command = commands.add_parser(name)
        command.set_defaults(command=function)
        command.add_argument("study", help="a file of experiments/studies without .py, or a path to your own")
        command.add_argument("--results", type=Path, default=EXPERIMENTS / "results", help="folder of the CSVs")
        if name != "table":
            command.add_argument(
                "--work", type=Path, default=EXPERIMENTS / "work", help="folder of models (%(default)s)"
            )
        if name == "run":
            raw = os.environ.get("nnUNet_raw")
            command.add_argument("--raw", type=Path, default=raw, required=raw is None, help="nnU-Net's raw datasets")
            command.add_argument("--jobs", type=int, default=2, help="trainings at a time, one core each (%(default)s)")
            command.add_argument("--restart", nargs="+", default=[], metavar="ARM", help="train these arms anew")
    page = commands.add_parser("page")
    page.set_defaults(command=_page)
    page.add_argument("page", type=Path, help="a text with markers such as <!-- table: NAME --> and <!-- end -->")
    page.add_argument("--results", type=Path, default=EXPERIMENTS / "results", help="folder of the CSVs")
    return parser


# What these import needs torch, which takes seconds: --help and a wrong name answer at once.


def _run(args: argparse.Namespace) -> int:
    from driver.run import Paths, run

    name, study = load_study(args.study)
    if args.jobs < 1:
        raise BadInput(f"--jobs is 1 or more, not {args.jobs}")
    paths = Paths(args.raw.resolve(), args.work.resolve(), args.results.resolve())
    return run(name, study, paths, jobs=args.jobs, restart=args.restart)


def _status(args: argparse.Namespace) -> int:
    from driver.status import status

    name, study = load_study(args.study)
    print(status(name, study, args.work.resolve(), args.results.resolve()))
    return 0


def _table(args: argparse.Namespace) -> int:
    from driver.tables import study_tables

    print(study_tables(*load_study(args.study), args.results.resolve()))
    return 0


def _curves(args: argparse.Namespace) -> int:
    from driver.curves import curves_table, save_curves

    (name, study), results = load_study(args.study), args.results.resolve()
    file = save_curves(name, study, args.work.resolve(), results)
    print(f"{curves_table(name, study, results)}\n\n{file}")
    return 0


def _page(args: argparse.Namespace) -> int:
    from driver.page import fill
    from driver.place import write_whole

    if not args.page.is_file():
        raise BadInput(f"{args.page} does not exist")
    write_whole(args.page, fill(args.page.read_text(encoding="utf-8"), args.results.resolve()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
