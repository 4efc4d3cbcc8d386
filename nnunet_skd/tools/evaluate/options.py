"""Options of the commands that hold predictions against references."""

from argparse import ArgumentParser

from nnunetv2.configuration import default_num_processes


def add_options(parser: ArgumentParser) -> None:
    """-djfile, which says what the files hold, and -np."""
    parser.add_argument("-djfile", required=True, metavar="FILE", help="dataset.json of the raw dataset or the model")
    parser.add_argument(
        "-np",
        type=int,
        default=default_num_processes,
        metavar="N",
        help="processes; each holds one case in memory (default: %(default)s, nnU-Net's)",
    )
