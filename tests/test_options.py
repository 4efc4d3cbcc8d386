"""One name per option everywhere; what was an option before is still accepted, though --help no longer shows it."""

import argparse
import importlib

import pytest

from nnunet_skd.tools.cli import COMMANDS

REQUIRED = {"compare": ["-o", "x"], "convert": ["m2caiseg", "x", "-d", "1"]}
OLD = [
    ("compare", "--metric Dice IoU", "--metrics Dice IoU"),
    ("compare", "-k 2", "--pictures 2"),
    ("demo", "--trainer nnUNetTrainer", "-tr nnUNetTrainer"),
    ("convert", "--nearest-colour", "--nearest_colour"),
]


def parser_of(command: str) -> argparse.ArgumentParser:
    module = importlib.import_module(f"nnunet_skd.tools.{COMMANDS[command][0]}")
    parser = argparse.ArgumentParser(command)
    module.add_arguments(parser)
    return parser


@pytest.mark.parametrize(("command", "old", "new"), OLD)
def test_old_names_are_still_accepted(command, old, new, capsys):
    parser, required = parser_of(command), REQUIRED.get(command, [])
    assert parser.parse_args(required + old.split()) == parser.parse_args(required + new.split())
    assert parser.parse_args(required) != parser.parse_args(required + new.split())
    with pytest.raises(SystemExit):
        parser.parse_args([*required[:2], "--help"])
    text = capsys.readouterr().out
    assert new.split()[0] in text and f"{old.split()[0]} " not in text


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
