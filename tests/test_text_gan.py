"""Character WGAN-GP: its networks, the penalty through one-dimensional convolutions, and a language that it learns."""

from __future__ import annotations

import math
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from common import equal, js2, state, trainer

from lightning_gans import WGANGP, load
from lightning_gans.callbacks import EMA, OverfitAlarm, SampleGrid, SampleText, TextMetrics
from lightning_gans.cli import main
from lightning_gans.compat.lightning import callbacks, pl
from lightning_gans.datamodules import MarkovText, PyDocText
from lightning_gans.functional import double_backward, gradient_penalty
from lightning_gans.functional.text import one_hot
from lightning_gans.networks import CharCritic, CharGenerator, LSTMGenerator

CONFIGS = Path(__file__).parent.parent / "configs"
SMALL: dict[str, Any] = {"width": 16, "blocks": 1, "kernel": 3}


def parameters(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def from_config(name: str) -> tuple[CharGenerator, CharCritic]:
    config = yaml.safe_load((CONFIGS / name).read_text())
    model, data = config["model"]["init_args"], PyDocText(**config["data"]["init_args"])
    with torch.device("meta"):
        generator = CharGenerator(data.shape, model["latent_dim"], **model["generator"]["init_args"])
        return generator, CharCritic(data.shape, **model["discriminator"]["init_args"])


@pytest.mark.parametrize(
    "name, wanted",
    [("text/wgan_gp_32.yaml", (15_239_707, 13_143_041)), ("pydoc/wgan_gp.yaml", (54_779, 22_017))],
)
def test_numbers_of_parameters(name: str, wanted: tuple[int, int]) -> None:
    """The first as published, at 27 symbols."""
    generator, critic = from_config(name)
    assert (parameters(generator), parameters(critic)) == wanted


def test_initial_weights_have_the_released_codes_spread() -> None:
    torch.manual_seed(0)
    generator, critic = CharGenerator((16, 10), 64, 64, 1), CharCritic((16, 10), 64, 1)
    for layer, std in (
        (generator.noise, math.sqrt(2 / (64 + 64 * 16))),
        (generator.blocks[0].first, math.sqrt(4 / (64 * 5 + 64 * 5))),
        (critic.inside, math.sqrt(4 / (10 + 64))),
    ):
        assert float(layer.weight.std()) == pytest.approx(std, rel=0.05) and float(layer.bias.abs().max()) == 0
        assert float(layer.weight.abs().max()) <= std * math.sqrt(3)


def test_networks_are_the_published_formulas() -> None:
    """Written out: channels first, .3 of the branch, no activation behind the last block."""
    torch.manual_seed(0)
    generator, critic = CharGenerator((4, 3), 2, 5, 2, 3).double(), CharCritic((4, 3), 5, 2, 3).double()
    z = torch.randn(2, 2, dtype=torch.float64)

    def conv(layer: Any, h: torch.Tensor) -> torch.Tensor:
        k = layer.weight.shape[2]
        padded = torch.nn.functional.pad(h, (k // 2, k // 2))
        columns = torch.stack([padded[:, :, i : i + h.shape[2]] for i in range(k)], -1)
        return torch.einsum("nctk,ock->not", columns, layer.weight) + layer.bias[:, None]

    def blocks(net: Any, h: torch.Tensor) -> torch.Tensor:
        for block in net.blocks:
            h = h + 0.3 * conv(block.second, conv(block.first, h.clamp(min=0)).clamp(min=0))
        return h

    h = (z @ generator.noise.weight.T + generator.noise.bias).reshape(2, 5, 4)
    y = conv(generator.out, blocks(generator, h)).transpose(1, 2).softmax(-1)
    assert torch.allclose(generator(z), y, atol=1e-12) and torch.equal(generator.generate(z), y.argmax(-1))
    flat = blocks(critic, conv(critic.inside, y.transpose(1, 2))).reshape(2, -1)
    assert torch.allclose(critic(y), (flat @ critic.score.weight.T + critic.score.bias)[:, 0], atol=1e-12)


@pytest.mark.parametrize("generator", [
    lambda: CharGenerator((4, 6), 8, **SMALL), lambda: CharGenerator((4, 6), 32, gumbel=1.0, **SMALL),
    lambda: LSTMGenerator((4, 6), 4, 5),
])  # fmt: skip
def test_text_in_half_is_made_of_noise_in_full_precision(generator: Any) -> None:
    net = generator()
    model, seen = WGANGP(net, CharCritic((4, 6), **SMALL), net.latent_dim, d_steps=1), []
    model.discriminator.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    trainer(max_steps=1, precision="bf16-true").fit(model, datamodule=MarkovText(T=4, batch_size=8))
    assert model.last_batch is not None and model.last_batch.z.dtype == model.latents(2)[0].dtype == torch.float32
    assert set(seen) == {torch.bfloat16} and model(model.latents(2)[0]).dtype == torch.bfloat16


def test_the_penalty_is_the_same_by_all_ways() -> None:
    """Value and gradients by every parameter, to 1e-10 of the largest: convolutions of one dimension are covered."""
    torch.manual_seed(0)
    critic = CharCritic((8, 6), **SMALL).double()
    x = torch.softmax(3 * torch.randn(5, 8, 6, dtype=torch.float64), -1)
    found = {}
    for way in ("plain", "sparse", "linear"):
        with double_backward(way):
            value = gradient_penalty(critic, x)
        found[way] = [value, *torch.autograd.grad(value, list(critic.parameters()), allow_unused=True)]
    largest = max(float(g.abs().max()) for g in found["plain"][1:] if g is not None)
    for way in ("sparse", "linear"):
        for plain, other in zip(found["plain"], found[way]):
            if plain is None or not bool(plain.any()):  # the biases of a piecewise linear critic
                assert other is None or float(other.abs().max()) < 1e-10 * largest
            else:
                assert float((plain - other).abs().max()) < 1e-10 * largest


def test_convolutions_of_one_dimension_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast way is taken, rather than fallen back from."""
    from lightning_gans.functional.double_backward import sparse

    calls, apply = [], sparse._ConvolutionInputGradient.apply
    monkeypatch.setattr(sparse._ConvolutionInputGradient, "apply", lambda *a: (calls.append(1), apply(*a))[1])
    gradient_penalty(CharCritic((8, 6), **SMALL), torch.rand(2, 8, 6)).backward()
    assert len(calls) == 3  # one for each convolution


# ---------------------------------------------------------------------- samples that are drawn
def test_gumbel_noise_gives_the_softmaxs_law() -> None:
    torch.manual_seed(0)
    generator = CharGenerator((2, 3), 2 + 6, 8, 1, 3, gumbel=20.0)
    z = torch.cat([torch.zeros(30_000, 2), torch.randn(30_000, 6, generator=torch.Generator().manual_seed(1))], 1)
    with torch.no_grad():
        y, tokens = generator(z), generator.generate(z)
        for temperature in (1.0, 0.5):
            p = (generator.logits(z[:1])[0] / temperature).softmax(-1)
            drawn = one_hot(generator.generate(z, temperature), 3).mean(0)
            assert float(((drawn - p) / (p * (1 - p) / 30_000).sqrt()).abs().max()) < 4
        assert torch.allclose(y.sum(-1), torch.ones(30_000, 2), atol=1e-5) and torch.equal(y.argmax(-1), tokens)
        hard = CharGenerator((2, 3), 8, 8, 1, 3, gumbel=1e4)
        hard.load_state_dict(generator.state_dict())
        assert float((hard(z) - one_hot(tokens, 3)).abs().mean()) < 1e-2  # beta to infinity: one-hot vectors
    assert bool(torch.isfinite(generator(40 * torch.ones(1, 8))).all())
    with pytest.raises(ValueError, match="latent_dim must be above 6, T V, with gumbel, got 6"):
        CharGenerator((2, 3), 6, gumbel=1.0)


def test_straight_through_is_one_hot_with_the_soft_gradient() -> None:
    torch.manual_seed(0)
    hard = CharGenerator((4, 3), 2, 5, 1, 3, straight_through=True)
    soft = CharGenerator((4, 3), 2, 5, 1, 3)
    soft.load_state_dict(hard.state_dict())
    z, direction = torch.randn(3, 2), torch.randn(3, 4, 3)
    assert torch.allclose(hard(z), one_hot(hard.generate(z), 3), atol=1e-6)
    gradients = [torch.autograd.grad((net(z) * direction).sum(), list(net.parameters())) for net in (hard, soft)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients))


# ---------------------------------------------------------------------- as any other model
def game(seed: int = 0, **options: Any) -> tuple[WGANGP, MarkovText]:
    data = MarkovText()
    torch.manual_seed(seed)
    nets = CharGenerator(data.shape, 16, **SMALL), CharCritic(data.shape, **SMALL)
    return WGANGP(*nets, 16, **({"betas": (0.5, 0.9), "lr_g": 1e-3, "lr_d": 1e-3} | options)), data


def test_samples_are_tokens_and_training_sees_vectors() -> None:
    model, data = game(d_steps=1)
    said = SampleText(2, lines=5, shown=0)
    t = trainer(max_steps=2, callbacks=[EMA(0.5), SampleGrid(None), OverfitAlarm(1), said])
    t.fit(model, datamodule=data)
    assert model.last_batch is not None and model.last_fake is not None
    assert model.last_batch.real.shape == model.last_fake.shape == (64, 8, 6)
    tokens = model.sample(5, seed=0)
    assert tokens.shape == (5, 8) and tokens.dtype == torch.int64 and said.texts == data.decode(tokens)
    assert torch.equal(tokens, model.decode(model.latents(5, seed=0)[0])) and model.vocabulary == data.vocabulary
    with pytest.raises(ValueError, match=r"temperature must be None for a CharGenerator without gumbel, got 0\.5"):
        model.sample(2, temperature=0.5)
    longer = WGANGP(CharGenerator(data.shape, 16, **SMALL), CharCritic(data.shape, **SMALL), 40)
    with pytest.raises(ValueError, match="latent_dim=40 must be the length of the noise that it takes"):
        trainer(max_steps=1).fit(longer, datamodule=data)
    with pytest.raises(TypeError, match="SampleGrid needs a model that makes images or points, got WGANGP"):
        trainer(max_steps=1, callbacks=[SampleGrid()]).fit(model, datamodule=data)
    with pytest.raises(ValueError, match="metrics must be without 'nll_gen' for WGANGP, which has no density"):
        trainer(max_steps=1, callbacks=[TextMetrics(metrics=["nll_gen"])]).fit(model, datamodule=data)


def test_resume_is_exact(tmp_path: Path) -> None:
    def run(steps: int, ckpt: str | None = None) -> dict[str, torch.Tensor]:
        pl.seed_everything(3, verbose=False)
        model, data = game(d_steps=2)
        save = callbacks.ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=2)
        t = trainer(max_steps=steps, callbacks=[save], enable_checkpointing=True)
        t.fit(model, datamodule=data, ckpt_path=ckpt)
        return state(model)

    whole = run(4)
    assert equal(whole, run(4, str(tmp_path / "step=2.ckpt")))


def test_a_run_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--trainer.max_steps", "2", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    main(["fit", "--config", str(CONFIGS / "pydoc/wgan_gp.yaml"), *options, "--name", "run", "--model.d_steps", "1"])
    model = load(tmp_path / "runs" / "run")
    assert model.vocabulary is not None and len(model.vocabulary) == 27
    main(["export", "--ckpt_path", "runs/run", "--out", "g.pt2"])
    assert "relaxed one-hot vectors (N, T, V), whose argmax are the tokens" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"temperature must be None for a CharGenerator without gumbel, got 0\.5"):
        main(["predict", "--ckpt_path", "runs/run", "--temperature", "0.5"])
    assert not (tmp_path / "runs" / "run" / "predictions").exists()
    made = torch.export.load(tmp_path / "g.pt2").module()(z := torch.randn(3, 64))
    assert made.shape == (3, 16, 27) and torch.equal(made.argmax(-1), model.decode(z))
    card = (tmp_path / "runs" / "run" / "checkpoints" / "last.md").read_text()
    assert re.search("```text\n([a-z ]*\n){10}```", card)


@pytest.mark.parametrize("name, sizes", [*product([CharGenerator, CharCritic], [{"kernel": 4}, {"width": 0}])])
def test_sizes_out_of_range(name: type, sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"kernel must be odd, .* got 4|width must be an integer >= 1, got 0"):
        name((4, 3), **sizes)
    with pytest.raises(ValueError, match=r"shape must be \(T, V\), .* got \(1, 8, 8\)"):
        name((1, 8, 8))


# ---------------------------------------------------------------------- learning
def test_the_first_updates_lower_js() -> None:
    """By .021 to .058 for five seeds; without the penalty it rises by .2 and more, without G's term it stays."""
    model, data = game()
    before = js2(model, data, 640)
    trainer(max_steps=60).fit(model, datamodule=data)
    assert js2(model, data, 640) < before - 0.01


@pytest.mark.slow
def test_it_learns_the_toy_language() -> None:
    """JS_2 to the truth far below that of independent letters of the right frequency."""
    model, data = game()
    one = data.law(1)
    unigram = (one[:, None] * one).flatten()
    from lightning_gans.metrics import jensen_shannon

    assert float(jensen_shannon(unigram, data.law(2))) == pytest.approx(0.389, abs=1e-3)  # exactly, not of samples
    trainer(max_steps=500).fit(model, datamodule=data)
    assert js2(model, data, 640) < 0.15


@pytest.mark.slow
@pytest.mark.parametrize("mutation", ["penalty", "adversarial"])
def test_without_a_term_it_does_not_learn(mutation: str) -> None:
    model, data = game(**({"gp_weight": 0.0} if mutation == "penalty" else {}))
    if mutation == "adversarial":
        model.generator_terms = lambda batch, fake: {"adversarial": 0 * fake.sum()}  # type: ignore[method-assign]
    trainer(max_steps=500).fit(model, datamodule=data)
    assert js2(model, data, 640) > 0.3
