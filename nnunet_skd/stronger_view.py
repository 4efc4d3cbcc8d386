"""The student's view of a patch without labels: the teacher's patch, changed more strongly (after UniMatch; ours)."""

import itertools
import random
from collections.abc import Callable

import torch
from torch import Tensor


class StrongerView:
    """Random flips, quarter turns, intensity and CutMix. What moves voxels moves the teacher's outputs with them.

    Args:
        mirror_axes: the spatial axes that nnU-Net mirrors. Left and right stay apart where the trainer does not.
        spacing: in mm, of the spatial axes. Quarter turns need a plane of equal spacing and patch size whose axes are
            both mirrored.
        masked: for each channel, whether nnU-Net keeps 0 outside of the object (``use_mask_for_norm``). It stays 0.
    """

    def __init__(self, mirror_axes: tuple[int, ...], spacing: tuple[float, ...], masked: tuple[bool, ...] = ()):
        self.mirror_axes = mirror_axes
        self.spacing = spacing
        self.masked = masked

    def __call__(
        self, data: Tensor, outputs: list[Tensor | None], target: list[Tensor] | None
    ) -> tuple[Tensor, list[Tensor | None], list[Tensor] | None]:
        """``data`` is ``B, C, spatial``; ``outputs`` the teacher's logits of it; ``target`` nnU-Net's, or None."""
        parts = [data, *outputs, *(target or [])]
        parts = self._cut_mix(self._turn(self._flip(parts)))
        data, outputs, moved = parts[0], parts[1 : 1 + len(outputs)], parts[1 + len(outputs) :]
        return _change_intensity(data, self.masked), outputs, None if target is None else moved

    def _flip(self, parts: list[Tensor | None]) -> list[Tensor | None]:
        axes = [axis + 2 for axis in self.mirror_axes if random.random() < 0.5]
        return _each(parts, lambda x: x.flip(axes)) if axes else parts

    def _turn(self, parts: list[Tensor | None]) -> list[Tensor | None]:
        planes = [
            (a, b)
            for a, b in itertools.combinations(sorted(self.mirror_axes), 2)
            if abs(self.spacing[a] - self.spacing[b]) < 1e-3 * self.spacing[a]
            and all(x is None or x.shape[a + 2] == x.shape[b + 2] for x in parts)
        ]
        if not planes:
            return parts
        (a, b), quarters = random.choice(planes), random.randrange(4)
        # contiguous: a compiled network is compiled anew for other strides
        return _each(parts, lambda x: x.rot90(quarters, (a + 2, b + 2)).contiguous())

    def _cut_mix(self, parts: list[Tensor | None]) -> list[Tensor | None]:
        """With probability 1/2, a box of a tenth to a half of each patch comes from the next patch of the batch."""
        data = parts[0]
        if len(data) < 2 or random.random() < 0.5:
            return parts
        size = data.shape[2:]
        lowest = [min(x.shape[2 + axis] for x in parts if x is not None) for axis in range(len(size))]
        share = random.uniform(0.1, 0.5) ** (1 / len(size))
        # in cells of the lowest resolution, so that the box has sharp edges in every output
        edges = [max(1, round(share * n)) for n in lowest]
        starts = [random.randint(0, n - edge) for n, edge in zip(lowest, edges, strict=True)]

        def mixed(x: Tensor) -> Tensor:
            cells = [n // m for n, m in zip(x.shape[2:], lowest, strict=True)]
            box = tuple(slice(s * c, (s + e) * c) for s, e, c in zip(starts, edges, cells, strict=True))
            x = x.clone()
            x[(..., *box)] = x.roll(1, 0)[(..., *box)]
            return x

        return _each(parts, mixed)


def _each(parts: list[Tensor | None], change: Callable[[Tensor], Tensor]) -> list[Tensor | None]:
    return [None if x is None else change(x) for x in parts]


def _change_intensity(data: Tensor, masked: tuple[bool, ...] = ()) -> Tensor:
    """Per patch and channel: scale, shift (in standard deviations of the channel) and Gaussian noise."""
    shape = (*data.shape[:2], *(1,) * (data.dim() - 2))
    scale = torch.empty(shape, device=data.device).uniform_(0.7, 1.3)
    shift = torch.empty(shape, device=data.device).uniform_(-0.3, 0.3)
    noise = torch.empty(shape, device=data.device).uniform_(0, 0.1)
    axes = tuple(range(2, data.dim()))
    inside = torch.ones_like(data, dtype=torch.bool)
    for channel, is_masked in enumerate(masked):
        if is_masked:
            inside[:, channel] = data[:, channel] != 0
    count = inside.sum(axes, keepdim=True)
    mean = data.sum(axes, keepdim=True) / count.clamp_min(1)
    std = (((data - mean) * inside).square().sum(axes, keepdim=True) / (count - 1).clamp_min(1)).sqrt()
    changed = (data - mean) * scale + mean + std * (shift + noise * torch.randn_like(data))
    return changed.where(inside, 0)
