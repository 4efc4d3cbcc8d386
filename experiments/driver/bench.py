"""What trainers cost: the bench.json of ``nnunet-skd bench``, kept in results/bench, as a table."""

import json
from pathlib import Path

from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id

from driver.markdown import markdown
from nnunet_skd.tools.bench.report import where_measured
from nnunet_skd.tools.errors import BadInput


def bench_table(name: str, results: Path) -> str:
    """Step time and memory as multiples of the first trainer's, and the command that measures them.

    Raises:
        BadInput: there is no such file.
    """
    file = results / "bench" / f"{name}.json"
    if not file.is_file():
        raise BadInput(f"{file} is missing. Measure it (nnunet-skd bench ... -o DIR) and copy DIR/bench.json there")
    found = json.loads(file.read_text(encoding="utf-8"))
    trainers = found["trainers"]
    unit = trainers[0]["step_ms"]["median"]
    patch = " x ".join(map(str, found["patch_size"]))
    where = (
        f"{found['dataset']}, `{found['configuration']}`: batch of {found['batch_size']} patches of {patch}. "
        f"{where_measured(found)}."
    )
    lines = []
    for i, trainer in enumerate(trainers):
        ratio = trainer["ratio"]
        step = f"{ratio['median']:.2f} ({ratio['q1']:.2f} to {ratio['q3']:.2f})" if i else f"{unit:.0f} ms"
        parts = [f"{trainer[f'{part}_ms']['median'] / unit:.2f}" for part in ("losses", "teacher")]
        memory = f"{trainer['peak_memory_ratio']:.2f}" if i else f"{trainer['peak_memory'] / 2**20:.0f} MiB"
        lines.append([trainer["name"], step, *parts, memory])
    table = markdown(["trainer", "step time", "losses", "teacher", "peak memory"], lines)
    return f"{where}\n\n{table}\n\n`{_command(found)}`"


def _command(found: dict) -> str:
    """Teachers are not noted; --teacher MODEL stands for them."""
    names = [trainer["name"] for trainer in found["trainers"]]
    teacher = " --teacher MODEL" if any("Distill" in name for name in names) else ""
    return (
        f"nnunet-skd bench -d {convert_dataset_name_to_id(found['dataset'])} -c {found['configuration']} "
        f"-tr {' '.join(names)}{teacher} "
        f"-device {found['device']} --steps {found['steps']} --cases {found['cases']}"
    )
