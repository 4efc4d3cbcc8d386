"""Tables in Markdown."""


def markdown(header: list[str], lines: list[list[str]]) -> str:
    """A column that is empty in every line is left out, such as the differences of a single arm."""
    columns = [column for column in zip(header, *lines, strict=True) if any(column[1:])]
    header, *lines = zip(*columns, strict=True)
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
