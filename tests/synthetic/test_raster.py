"""The z-buffer beside a plain one that asks every triangle about every sample in float64."""

from __future__ import annotations

import numpy as np
import torch

from speak.synthetic.raster import rasterise

SIZE, PICTURES, TRIANGLES = 20, 3, 48


def soup(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Corners [2, B, V] in pixels, some outside the picture, depths [B, V]: large triangles, small ones, slivers."""
    random = np.random.default_rng(seed)
    middle = random.uniform(-2, SIZE + 2, (2, PICTURES, TRIANGLES, 1))
    spread = random.choice([0.4, 1.5, 4.0, 12.0], (1, PICTURES, TRIANGLES, 1))
    flat = random.choice([0.02, 1.0], (2, 1, TRIANGLES, 1), p=[0.2, 0.8])
    corners = middle + random.normal(0, 1, (2, PICTURES, TRIANGLES, 3)) * spread * flat
    depth = random.permutation(TRIANGLES)[None, :, None] * 0.1 - 2 + random.uniform(0, 0.04, (PICTURES, TRIANGLES, 3))
    return torch.from_numpy(corners).flatten(2).float(), torch.from_numpy(depth).flatten(1).float()


def nearest(corners: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which triangle is seen by every sample [B, S, S, 4], -1 for none, and whether an edge passes too near to say."""
    row, column, sample = np.meshgrid(np.arange(SIZE), np.arange(SIZE), np.arange(4), indexing="ij")
    right, below = sample % 2, sample // 2
    x, y = column + 0.125 + 0.5 * right + 0.25 * below, row + 0.125 + 0.5 * below + 0.25 * right
    seen = np.full((PICTURES, SIZE, SIZE, 4), -1)
    best, doubtful = np.full(seen.shape, -np.inf), np.zeros(seen.shape, bool)
    for picture in range(PICTURES):
        for triangle in range(TRIANGLES):
            (x0, x1, x2), (y0, y1, y2) = corners[:, picture, triangle]
            area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
            if area > -1e-6:  # seen from behind
                continue
            a = ((y1 - y2) * (x - x2) + (x2 - x1) * (y - y2)) / area
            b = ((y2 - y0) * (x - x2) + (x0 - x2) * (y - y2)) / area
            least = np.minimum(np.minimum(a, b), 1 - a - b)
            deep = a * depth[picture, triangle, 0] + b * depth[picture, triangle, 1]
            deep = deep + (1 - a - b) * depth[picture, triangle, 2]
            inside = (least >= 0) & (deep > best[picture])
            seen[picture][inside], best[picture][inside] = triangle, deep[inside]
            doubtful[picture] |= np.abs(least) < 2e-3
    return seen, doubtful


def test_every_sample_sees_the_triangle_that_is_nearest_there() -> None:
    compared = right = 0
    for seed in range(4):
        corners, depth = soup(seed)
        faces = torch.arange(3 * TRIANGLES).reshape(-1, 3)
        samples = rasterise(corners, depth, faces, torch.arange(TRIANGLES), SIZE, 0.01)
        got = torch.full((PICTURES * SIZE * SIZE, 4), -1)
        face = torch.cat([samples.face, torch.tensor([-1])])  # the last: background
        got[samples.whole] = samples.face[: len(samples.whole), None].expand(-1, 4)
        got[samples.edge] = face[samples.edge_sample]
        shape = (2, PICTURES, TRIANGLES, 3)
        seen, doubtful = nearest(corners.double().numpy().reshape(shape), depth.double().numpy().reshape(shape[1:]))
        sure = ~doubtful
        assert np.array_equal(got.numpy().reshape(seen.shape)[sure], seen[sure])
        compared, right = compared + sure.sum(), right + (seen[sure] >= 0).sum()
        mixed = samples.weights * torch.stack([corners.flatten(1)[0][faces[samples.face, k] + samples.picture *
                                                                     3 * TRIANGLES] for k in range(3)])  # fmt: skip
        pixel = samples.whole % (SIZE * SIZE) % SIZE + 0.5  # a whole pixel is sampled in its middle, where it is inside
        inside = (samples.weights.amin(0) > 0)[: len(pixel)]
        assert (mixed.sum(0)[: len(pixel)] - pixel)[inside].abs().max() < 1e-3
    assert compared > 0.9 * 16 * PICTURES * SIZE * SIZE and right > 0.3 * compared
