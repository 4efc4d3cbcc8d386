"""One name per option everywhere."""

import argparse
import importlib

from nnunet_skd.tools.cli import COMMANDS


def parser_of(command: str) -> argparse.ArgumentParser:
    module = importlib.import_module(f"nnunet_skd.tools.{COMMANDS[command][0]}")
    parser = argparse.ArgumentParser(command)
    module.add_arguments(parser)
    return parser


def test_equal_options_have_equal_metavars():
    """-d is a dataset, -o a place, ... in each command; convert's -d is the id of a data set that it makes."""
    metavars = {}
    for command in COMMANDS:
        if command == "convert":
            continue
        for action in parser_of(command)._actions:
            for name in action.option_strings if action.help != argparse.SUPPRESS else ():
                metavars.setdefault(name, {}).setdefault(action.metavar, []).append(command)
    metavars["-o"].pop("OUTPUT")  # export: a zip file or a folder
    assert {name: found for name, found in metavars.items() if len(found) > 1} == {}
