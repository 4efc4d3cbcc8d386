"""The results of ``nnunet-skd bench`` as text and files."""

import json
from pathlib import Path

from nnunet_skd.tools.bench.picture import draw_losses, draw_trainers
from nnunet_skd.tools.bench.trainers import PARTS
from nnunet_skd.tools.files import new_files, require_absent
from nnunet_skd.tools.text_table import aligned

FILES = ("bench.json", "bench.txt", "bench.png")


def trainer_table(results: dict) -> str:
    """The results of :func:`bench` as text."""
    trainers = results["trainers"]
    unit = trainers[0]["step_ms"]["median"]
    rate = ("img/s", "patches_per_s", 1) if len(results["patch_size"]) == 2 else ("Mvox/s", "voxels_per_s", 1e-6)
    header = ["trainer", "step ms", "ratio", *PARTS, "MiB", "ratio", rate[0]]
    if results["cases"]:
        header += ["s/case", "ratio"]
    rows = []
    for result in trainers:
        row = [result["name"], _spread(result["step_ms"], 1), _spread(result["ratio"], 2)]
        row += [f"{result[f'{part}_ms']['median'] / unit:.3f}" for part in PARTS]
        row += [f"{result['peak_memory'] / 2**20:.1f}", f"{result['peak_memory_ratio']:.3f}"]
        row += [f"{result[rate[1]] * rate[2]:.2f}"]
        if results["cases"]:
            row += [_spread(result["inference_s"], 2), _spread(result["inference_ratio"], 2)]
        rows.append(row)
    return f"{_title(results)}\n\n{_table(header, rows)}"


def loss_table(results: dict) -> str:
    """The results of :func:`bench_loss_terms` as text."""
    header = ["classes", "patch", "term", "ms", "ratio", "kept MiB", "full-size", "peak MiB"]
    rows = [
        [
            str(r["classes"]),
            f"{r['edge']}^3",
            r["term"],
            _spread(r["ms"], 1),
            _spread(r["ratio"], 2),
            f"{r['kept'] / 2**20:.1f}",
            f"{r['buffers']:.2f}",
            f"{r['peak'] / 2**20:.1f}",
        ]
        for r in results["losses"]
    ]
    legend = (
        "Forward and backward pass to the logits. DDL, PSDL: what they add to Dice + CE. adversarial: ACW-SKD's\n"
        "temperature loss, alone. kept: for the backward pass; full-size: the same in float32 tensors of the\n"
        "full-resolution logits' size; peak: above the logits, of DDL and PSDL above the peak of Dice + CE,\n"
        "the teacher's outputs counted in."
    )
    return f"{_title(results)}\n\n{_table(header, rows)}\n\n{legend}"


def _spread(values: dict, digits: int) -> str:
    return f"{values['median']:.{digits}f} ({values['q1']:.{digits}f} - {values['q3']:.{digits}f})"


def _title(results: dict) -> str:
    if "losses" in results:
        what = f"Loss terms, batch size {results['batch_size']}, {results['steps']} calls each"
    else:
        patch = " x ".join(map(str, results["patch_size"]))
        what = (
            f"{results['dataset']}, {results['configuration']}, {results['plans']}: batch of {results['batch_size']}"
            f" patches of {patch}, {results['steps']} steps each"
        )
    return f"{what}\n{where_measured(results)}"


def where_measured(results: dict) -> str:
    compiled = ", torch.compile" if results["torch_compile"] else ""
    return f"{results['device_name']}{compiled}, PyTorch {results['torch']}, nnU-Net {results['nnunetv2']}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Text left, numbers right."""
    return "\n".join(aligned([header, *rows], left=[i for i, name in enumerate(header) if name in ("trainer", "term")]))


def save(results: dict, folder: Path) -> None:
    """Write bench.json, bench.txt and bench.png into a folder, all or none.

    Raises:
        BadInput: one of them is there already.
    """
    require_absent(folder, FILES)
    table, draw = (loss_table, draw_losses) if "losses" in results else (trainer_table, draw_trainers)
    with new_files(folder) as aside:
        (aside / "bench.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        (aside / "bench.txt").write_text(table(results) + "\n", encoding="utf-8")
        draw(results["losses" if "losses" in results else "trainers"], _title(results), aside / "bench.png")
