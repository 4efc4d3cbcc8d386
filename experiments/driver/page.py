"""The tables between the markers of docs/results.md."""

import re
from pathlib import Path

from driver.definition import load_study
from driver.tables import study_tables
from nnunet_skd.tools.errors import BadInput

MARKED = re.compile(r"(?P<begin><!-- table: (?P<name>\S+) -->\n)(?P<table>.*?)(?P<end>^<!-- end -->$)", re.S | re.M)


def fill(text: str, results: Path) -> str:
    """A page with the tables that today's rows make, between ``<!-- table: NAME -->`` and ``<!-- end -->``.

    Raises:
        BadInput: an unknown study, one without rows, rows of different code, or a marker without its end.
    """
    begins, ends = text.count("<!-- table: "), len(re.findall(r"^<!-- end -->$", text, re.M))
    if begins != ends or len(MARKED.findall(text)) != begins:
        raise BadInput(f"the page has {begins} markers '<!-- table: NAME -->' and {ends} '<!-- end -->'; pair them")

    def table(match: re.Match) -> str:
        name, study = load_study(match["name"])
        return f"{match['begin']}{study_tables(name, study, results)}\n{match['end']}"

    return MARKED.sub(table, text)
