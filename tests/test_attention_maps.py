"""What attention looks at: the weights themselves, their share by distance, and the callback that draws them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from common import make
from test_callbacks import equal, state

from lightning_gans import TransGAN
from lightning_gans.callbacks import EMA, AttentionMaps
from lightning_gans.callbacks.attention_maps import attention, by_distance
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import Digits
from lightning_gans.networks import TransGANDiscriminator, TransGANGenerator
from lightning_gans.networks.attention import Attention


@pytest.mark.parametrize("options", [{}, {"relative": True}, {"locality": "window", "reach": 1.0}, {"qk_norm": True}])
def test_weights_are_those_that_forward_takes(options: dict[str, Any]) -> None:
    layer = Attention(8, 2, grid=(2, 3), kernel="explicit", **options).double()
    x = torch.randn(4, 6, 8, dtype=torch.double)
    a, v = layer.weights(x), layer.qkv(x).chunk(3, 2)[2].unflatten(2, (2, 4)).transpose(1, 2)
    torch.testing.assert_close(a.sum(3), torch.ones(4, 2, 6, dtype=torch.double))
    torch.testing.assert_close(layer.project((a @ v).transpose(1, 2).flatten(2)), layer(x), rtol=0, atol=1e-12)


def test_share_by_distance() -> None:
    """Of equal weights on a grid of 2 x 2: a quarter on itself, three at distance 1; in a row, by |i - j|."""
    even = torch.full((4, 4), 0.25)
    assert by_distance(even, Attention(4, 1, grid=(2, 2))).tolist() == pytest.approx([0.25, 0.75])
    assert by_distance(even, Attention(4, 1)).tolist() == pytest.approx([4 / 16, 6 / 16, 4 / 16, 2 / 16])


def game(**options: Any) -> TransGAN:
    g = TransGANGenerator((1, 8, 8), 4, 16, [1, 1], heads=2, locality="window", num_classes=10)
    d = TransGANDiscriminator((1, 8, 8), [8], [1, 1], patch=4, heads=2, num_classes=10)
    return TransGAN(g, d, 4, locality=[(1, 2)], d_steps=1, g_batch_factor=1, **options)


def trained(module: Any, *callbacks: Any, folder: Path) -> Any:
    torch.manual_seed(0)
    trainer = pl.Trainer(
        max_steps=4, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[*callbacks], default_root_dir=str(folder),
    )  # fmt: skip
    trainer.fit(module, datamodule=Digits(batch_size=8))
    return module


def test_it_sees_the_mask_and_leaves_training_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(1)
    plain = trained(game(), EMA(0.5), folder=tmp_path)
    torch.manual_seed(1)
    maps = AttentionMaps(2, num_samples=3)
    assert equal(state(trained(game(), EMA(0.5), maps, folder=tmp_path)), state(plain))
    last = {step: shares["g/stages.1.0.attention"] for step, shares in maps.kept.items()}
    assert [*last] == [0, 2, 4] and len(maps.kept[0]) == 4
    assert all(math.isclose(sum(share), 1, rel_tol=1e-5) for share in last.values())
    assert sum(last[2][:2]) == pytest.approx(1) and sum(last[4][:2]) < 0.6  # the mask holds until the second update
    assert {"step_000000.png", "step_000004.png", "latest.png"} <= {p.name for p in (tmp_path / "attention").iterdir()}


def test_labels_are_where_the_samples_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model on a GPU, for which the meta device stands here."""
    module, seen = game(), []
    made = module.sample
    monkeypatch.setattr(module, "sample", lambda *given, **by_name: made(*given, **by_name).to("meta"))

    def scored(x: torch.Tensor, batch: Any) -> torch.Tensor:
        seen.append((x.device.type, batch.labels.device.type))
        return torch.zeros(len(x))

    monkeypatch.setattr(module, "score", scored)
    attention(module, 3)
    assert seen == [("meta", "meta")]


def test_it_refuses_a_model_without_attention(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"AttentionMaps needs a model with networks\.Attention, got GAN without one"):
        trained(make("gan"), AttentionMaps(), folder=tmp_path)
