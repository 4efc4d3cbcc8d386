"""The tables between the markers of docs/results.md and docs/cost.md."""

import re
from pathlib import Path

from driver.bench import bench_table
from driver.curves import curves_table
from driver.definition import load_study
from driver.tables import study_tables
from nnunet_skd.tools.errors import BadInput

MARKER = r"<!-- (?P<kind>table|curves|bench): (?P<name>\S+) -->\n"
MARKED = re.compile(rf"(?P<begin>{MARKER})(?P<table>.*?)(?P<end>^<!-- end -->$)", re.S | re.M)


def fill(text: str, results: Path) -> str:
    """A page with the tables that today's files make, between a marker such as ``<!-- table: NAME -->`` and its end.

    ``table`` is about the rows of a study and ``curves`` about its trainings' course; ``bench`` is about a bench.json.

    Raises:
        BadInput: an unknown study, one without rows, rows of different code, or a marker without its end.
    """
    begins, ends = len(re.findall(MARKER, text)), len(re.findall(r"^<!-- end -->$", text, re.M))
    if begins != ends or len(MARKED.findall(text)) != begins:
        raise BadInput(
            f"the page has {begins} markers such as '<!-- table: NAME -->' and {ends} '<!-- end -->'; pair them"
        )

    def table(match: re.Match) -> str:
        if match["kind"] == "bench":
            content = bench_table(match["name"], results)
        else:
            make = study_tables if match["kind"] == "table" else curves_table
            content = make(*load_study(match["name"]), results)
        return f"{match['begin']}{content}\n{match['end']}"

    return MARKED.sub(table, text)
