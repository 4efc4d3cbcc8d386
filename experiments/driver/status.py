"""What a study has, and what it lacks."""

from pathlib import Path

from driver.definition import Study
from driver.place import Place
from driver.rows import read_rows, rows_of
from driver.trainings import plan


def status(name: str, study: Study, work: Path, results: Path) -> str:
    """One line per cell: its rows are there, its model is trained, it has begun, or it is missing."""
    rows = read_rows(results / f"{name}.csv")
    lines, done = [], 0
    for cell, training in plan(study).items():
        place, number = Place(work, training.key), len(rows_of(rows, cell))
        done += number > 0
        if number:
            state = f"{number} rows"
        elif place.read_model():
            state = "trained, not tested yet"
        elif place.results.exists():
            state = "begun"
        else:
            state = "missing"
        lines.append(f"{training.key}  {str(cell):60} {state}")
    return "\n".join([f"{name}: {done} of {len(lines)} cells done", *lines])
