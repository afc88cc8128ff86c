"""Latent tools in w: directions, interpolation and walk of a generator by styles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from common import make, state, trainer
from torch import Tensor

from lightning_gans import StyleGAN2
from lightning_gans.diagnostics import LatentDirections, attribute_correlations
from lightning_gans.functional.latent import walk
from lightning_gans.networks import StyleDiscriminator, StyleGenerator
from lightning_gans.tools.write import latent_walk

SIDE = (3, 8, 8)


def styles(num_classes: int | None = None) -> StyleGAN2:
    torch.manual_seed(0)
    g = StyleGenerator(SIDE, 6, w_dim=5, widths=4, num_classes=num_classes)
    return StyleGAN2(g, StyleDiscriminator(SIDE, 4, group=2, num_classes=num_classes), 6)


@pytest.mark.parametrize("classes", [None, 3])
def test_directions_in_w(classes: int | None) -> None:
    module = styles(classes)
    before = state(module)
    found = LatentDirections(module, space="w", batch_size=4, init="axes", max_shift=2.0)
    assert (found.latent_dim, found.num_directions) == (5, 5)
    w, labels = found.noise(4, torch.Generator().manual_seed(0))
    z, _ = LatentDirections(module, batch_size=4).noise(4, torch.Generator().manual_seed(0))
    g: Any = module.generator.eval()
    torch.testing.assert_close(w, g.map(z, labels))
    moved = found(w, torch.full((4,), 2), torch.full((4,), 1.5), labels)
    expected = w.clone()
    expected[:, 2] += 1.5
    torch.testing.assert_close(moved, g.synthesis(g.spread(expected)))
    trainer(max_steps=2, limit_val_batches=0).fit(found)
    assert attribute_correlations(found, lambda x: {"light": x.mean((1, 2, 3))}, n=8)["light"].shape == (5,)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), state(module).values()))


def test_ways_in_w_are_straight() -> None:
    module = styles()
    g: Any = module.generator
    rows = walk(module, 3, 5, space="w").unflatten(0, (3, 5))
    ends, _ = module.latents(6, seed=0)
    with torch.no_grad():
        w = g.map(ends)

        def images(w: Tensor) -> Tensor:
            return g.synthesis(g.spread(w))

        for i, t in enumerate((0, 0.25, 0.5, 0.75, 1)):
            torch.testing.assert_close(rows[:, i], images((1 - t) * w[:3] + t * w[3:]), atol=1e-5, rtol=1e-4)
    film = latent_walk(module, n=2, places=3, frames=4, space="w")
    assert film.shape == (12, 2, *SIDE)
    torch.testing.assert_close(film[::4], latent_walk(module, n=2, places=3, frames=4)[::4], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(film[2], latent_walk(module, n=2, places=3, frames=4)[2])


def test_what_has_no_w_is_refused() -> None:
    with pytest.raises(ValueError, match="space must be z for a ToyGenerator, which has no w, got 'w'"):
        LatentDirections(make("gan"), space="w")
    with pytest.raises(ValueError, match="space must be one of z, w, got 'y'"):
        LatentDirections(make("gan"), space="y")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="space must be z for a ToyGenerator, which has no w, got 'w'"):
        walk(make("gan"), 2, 2, space="w")
