"""Write the cases of a data set, its dataset.json and its split."""

import json
import re
from collections import Counter
from pathlib import Path

from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from tqdm import tqdm

from nnunet_skd.messages import counted
from nnunet_skd.tools.convert.common import BadCase, Found
from nnunet_skd.tools.errors import BadInput
from nnunet_skd.tools.nnunet_folders import SPLITS


def name_cases(found: Found) -> None:
    """Make names that nnU-Net and every file system accept; where none is published, the test part validates."""
    for case in found.cases:
        case.name = re.sub(r"[^\w.-]", "_", case.name)
    twice = [name for name, count in Counter(case.name for case in found.cases).items() if count > 1]
    if twice:
        raise refusal([f"{name}: two cases of this name" for name in twice])
    if found.test_validates:
        for case in found.cases:
            case.part = "val" if case.part == "test" else case.part


def write_dataset(found: Found, folder: Path, partial: bool, converted_by: str) -> list[dict]:
    """Write all cases, dataset.json and splits_final.json. Returns the splits, [] if there are none."""
    for sub in ("imagesTr", "labelsTr"):
        (folder / sub).mkdir()
    written: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    seen, resolved, broken, empty = set(), 0, [], []
    for case in tqdm(found.cases, desc="converting", unit="case"):
        where = "Ts" if case.part == "test" else "Tr"
        image = folder / f"images{where}" / f"{case.name}_0000{found.file_ending}"
        label = folder / f"labels{where}" / f"{case.name}{found.file_ending}"
        for path in (image, label):
            path.parent.mkdir(exist_ok=True)
        try:
            outcome = case.write(image, label)
        except BadCase as error:
            broken.append(f"{case.name}: {error}")
            image.unlink(missing_ok=True)
            label.unlink(missing_ok=True)
            continue
        written[case.part].append(case.name)
        seen |= outcome.labels
        resolved += outcome.resolved
        if outcome.labels == {0}:
            empty.append(case.name)
    found.problems += broken
    if broken and not partial:
        raise refusal(found.problems)
    if not written["train"] + written["val"]:
        raise refusal(found.problems or ["no case is left to train on"])

    absent = [name for name, value in found.labels.items() if value not in seen]
    found.notes += [f"{resolved} {found.resolved}"] if resolved else []
    found.notes += [f"no case shows the label {', '.join(absent)}"] if absent else []
    found.notes += [f"background only: {', '.join(empty)}"] if empty else []
    splits = [{"train": written["train"], "val": written["val"]}] if written["train"] and written["val"] else []
    generate_dataset_json(
        str(folder),
        channel_names=dict(found.channel_names),
        labels=dict(found.labels),
        num_training_cases=len(written["train"] + written["val"]),
        file_ending=found.file_ending,
        reference=found.reference,
        license=found.licence,
        description=found.description,
        converted_by=converted_by,
        **({"left_out": found.problems} if found.problems else {}),
    )
    if splits:
        (folder / SPLITS).write_text(json.dumps(splits, indent=4))
    return splits


def refusal(problems: list[str]) -> BadInput:
    """The error that names everything that is wrong with a source."""
    return BadInput(
        f"nothing was written, because of {counted(len(problems), 'problem')}:\n  "
        + "\n  ".join(problems)
        + "\nFix the source (or download it again), or convert the rest with --partial."
    )
