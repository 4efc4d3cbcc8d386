"""The name of a dataset's plans file, which -p takes. A copy of it by hand keeps the plans_name inside."""

import json
from contextlib import suppress
from pathlib import Path


def plans_file_name(dataset: Path, plans: dict, configuration: str) -> str:
    """Of the file in a preprocessed dataset's folder that holds this configuration; else the plans_name itself."""
    name = plans["plans_name"]
    for file in sorted(dataset.glob("*.json"), key=lambda file: (file.stem != name, file.stem)):
        with suppress(OSError, ValueError, KeyError, TypeError):
            there = json.loads(file.read_bytes())
            entries = [content["configurations"].get(configuration) for content in (there, plans)]
            if there["plans_name"] == name and entries[0] == entries[1]:
                return file.stem
    return name
