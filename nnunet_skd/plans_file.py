"""The plans files of a preprocessed dataset, by the names that -p takes. A copy by hand keeps the plans_name inside."""

import json
from collections.abc import Iterator
from pathlib import Path


def plans_files(dataset: Path, first: str = "") -> Iterator[tuple[str, dict]]:
    """Name and content of each plans file in a dataset's folder, in alphabetical order but for the first."""
    for file in sorted(dataset.glob("*.json"), key=lambda file: (file.stem != first, file.stem)):
        try:
            content = json.loads(file.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and isinstance(content.get("configurations"), dict):
            yield file.stem, content


def plans_file_name(dataset: Path, plans: dict, configuration: str) -> str:
    """Of the file in a dataset's folder that holds this configuration; else the plans_name itself."""
    name, entry = plans["plans_name"], plans["configurations"].get(configuration)
    for file, there in plans_files(dataset, first=name):
        if there.get("plans_name") == name and there["configurations"].get(configuration) == entry:
            return file
    return name
