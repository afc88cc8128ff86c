"""SeqGAN: policy gradients by enumeration, rollouts, the delayed policy, the controls, and what it begins with."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from common import equal, js2, loud, state, trainer
from torch import Tensor, nn

from lightning_gans import GAN, MLE, RelGAN, SeqGAN, load
from lightning_gans.callbacks import TextMetrics
from lightning_gans.cli import main
from lightning_gans.compat.lightning import callbacks, pl
from lightning_gans.datamodules import MarkovText
from lightning_gans.engine.batch import Batch
from lightning_gans.functional import draw
from lightning_gans.functional.policy import follow, policy_loss
from lightning_gans.functional.text import draw_tokens, one_hot
from lightning_gans.metrics.text import held_out_nll
from lightning_gans.networks import (
    CharGenerator,
    LanguageModel,
    LeakGANGenerator,
    LSTMGenerator,
    RelationalGenerator,
    RelGANDiscriminator,
    SeqGANDiscriminator,
    ToyDiscriminator,
    ToyGenerator,
    language,
)
from lightning_gans.regularizers import R1, ConsistencyTerm

CONFIGS = Path(__file__).parent.parent / "configs"
SMALL: dict[str, Any] = {"embedding": 8, "kernels": (1, 2), "filters": 6}


def critic(shape: tuple[int, int] = (4, 6), **options: Any) -> SeqGANDiscriminator:
    return SeqGANDiscriminator(shape, **SMALL | options)


def game(seed: int = 0, one_hot: bool = False, **options: Any) -> tuple[Any, MarkovText]:
    data = MarkovText(T=4, batch_size=8, one_hot=one_hot)
    torch.manual_seed(seed)
    nets = options.pop("generator", None) or LanguageModel(data.shape, 4, 5), options.pop("discriminator", critic())
    return SeqGAN(*nets, 4, **{"rollouts": 2, "d_steps": 2, **options}), data


def batch(tokens: Tensor, seed: int = 0) -> Batch:
    return Batch(tokens, None, None, torch.zeros(len(tokens), 1), torch.Generator().manual_seed(seed))


class Told(nn.Module):
    """A discriminator whose score is a function of tokens, or of the largest of one-hot vectors."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function, self.score = function, nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x if x.dtype == torch.int64 else x.argmax(-1)) + 0 * self.score.weight.sum()


class Featured(nn.Module):
    """What has features, but not those of SeqGAN's discriminator token by token."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def features(self, x: Tensor) -> Any:
        return self.net.features(x)  # type: ignore[operator]


# ---------------------------------------------------------------------- the policy gradient
def test_the_policy_gradient_by_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two symbols, two places: of the four texts, weighted by their probabilities, it is that of the mean reward."""
    torch.manual_seed(0)
    net, scores = loud(LanguageModel((2, 2), 3, 3)), torch.tensor([1.5, -2.0, 0.3, 0.8], dtype=torch.float64)
    module = SeqGAN(net, Told(lambda x: scores[2 * x[:, 0] + x[:, 1]]), 2, rollouts=4000, l2_weight=0.0)
    every = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    worth = scores.sigmoid()
    p = (-net.nll(every).sum(1)).exp()
    wanted = torch.autograd.grad((p * worth).sum(), [q for q in net.parameters() if q.requires_grad])
    after = (-net.nll(every)[:, 1]).exp().detach()  # of the second symbol, given the first
    first = (after * worth).view(2, 2).sum(1).repeat_interleave(2)
    exact = torch.stack([first, worth], 1)
    grid = torch.special.ndtri((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)
    with monkeypatch.context() as patch:  # noise that leaves nothing to chance
        patch.setattr(draw, "normal", lambda n, *shape, **_: grid.view(-1, 1, 1).expand(n, *shape))
        found = module.rewards(every, batch(every))
    assert torch.allclose(found, exact, atol=3e-4) and torch.equal(found[:, 1], worth)
    chance = module.rewards(every, batch(every))
    assert float((chance - exact).abs().max()) < 4 * 0.5 / 4000**0.5
    module.rewards = lambda tokens, b: p.detach()[:, None] * exact  # type: ignore[method-assign]
    loss = module.generator_terms(batch(every), every)["adversarial"]
    got = torch.autograd.grad(loss, [q for q in net.parameters() if q.requires_grad])
    for a, b in zip(got, wanted):
        assert torch.allclose(a, -b, atol=1e-12) and float(b.abs().max()) > 1e-4


def test_rewards_are_constants_and_the_loss_is_a_sum() -> None:
    torch.manual_seed(0)
    module, _ = game()
    tokens = torch.randint(6, (8, 4))
    loss = module.generator_terms(batch(tokens), tokens)["adversarial"]
    others = [*module.discriminator.parameters(), *module.delayed.parameters()]
    own = [p for p in module.generator.parameters() if p.requires_grad]
    assert all(p.requires_grad for p in own) and loss.requires_grad
    found = torch.autograd.grad(loss, [p for p in others if p.requires_grad] + own, allow_unused=True)
    assert [g is None for g in found] == [True] * (len(found) - len(own)) + [False] * len(own)
    nll, reward = torch.rand(3, 4), torch.rand(3, 4, requires_grad=True)
    both = policy_loss(nll.repeat(2, 1), reward.repeat(2, 1))
    assert float(both) == pytest.approx(2 * float((nll * reward.detach()).sum()), rel=1e-6) and not both.requires_grad
    assert float(module.values["g/entropy"]) == pytest.approx(float(module.generator.nll(tokens).mean()))


# ---------------------------------------------------------------------- rollouts
def policies() -> list[Any]:
    torch.manual_seed(0)
    shape = (5, 7)
    own = [LanguageModel(shape, 3, 4), LSTMGenerator(shape, 3, 4), RelationalGenerator(shape, 3, 2, 1, 4)]
    return [
        *own,
        *(LeakGANGenerator(net, shape, 3, 4, 3, horizon=2) for net in (critic(shape), Featured(critic(shape)))),
    ]


@pytest.mark.parametrize("which", [0, 1, 2, 3, 4])
def test_rollouts_keep_the_prefix_and_go_on_as_if_it_were_read_anew(which: int) -> None:
    net = loud(policies()[which])
    tokens, z = torch.randint(7, (3, 5)), torch.randn(3, 2, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        texts = list(net.rollouts(tokens, z))
        assert len(texts) == 4
        for t, found in enumerate(texts, 1):
            rows = tokens.repeat_interleave(2, 0)
            assert found.dtype == torch.int64 and torch.equal(found[:, :t], rows[:, :t])
            own = rows[:, :t]
            for u in range(t, 5):
                again = torch.cat([own, own.new_zeros(6, 5 - u)], 1)
                noise = z[:, :, t - 1, u].flatten()
                own = torch.cat([own, draw_tokens(net.logits(again)[:, u], noise)[:, None]], 1)
            assert torch.equal(found, own)
        assert len({tuple(row) for row in texts[0].tolist()}) > 3
        few = list(net.rollouts(tokens, z[:, :, 1::2], 2))
        assert len(few) == 2 and torch.equal(few[0], texts[1]) and torch.equal(few[1], texts[3])


def test_all_rollouts_go_on_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """T steps, of the texts and what has parted from them; logits of no more rows at once than the cache holds."""
    net, rows = policies()[0], []
    step, tokens, z = net.step, torch.randint(7, (3, 5)), torch.randn(3, 2, 4, 5)
    with torch.no_grad():
        texts = net.rollouts(tokens, z)
        monkeypatch.setattr(net, "step", lambda token, state: (rows.append(len(token)), step(token, state))[1])
        monkeypatch.setattr(language, "CACHED", 7 * 4)
        assert torch.equal(net.rollouts(tokens, z), texts)
    assert rows == [3, 3, 9, 15, 21]


def test_an_lstms_steps_are_those_of_torchs_module() -> None:
    lstm, x = nn.LSTM(3, 4, batch_first=True).double(), torch.randn(300, 5, 3, dtype=torch.float64)
    for n in (2, 300):
        state, made = None, []
        for part in x[:n].unbind(1):
            h, state = language.lstm_step(lstm, part, state)
            made.append(h)
        whole, (h, c) = lstm(x[:n])
        assert all(torch.allclose(a, b) for a, b in zip((torch.stack(made, 1), *state), (whole, h[0], c[0])))


def test_a_reward_that_the_first_token_decides_is_the_same_at_all_places() -> None:
    module, _ = game(discriminator=Told(lambda x: x[:, 0].float() - 2))
    tokens = torch.randint(6, (8, 4))
    reward = module.rewards(tokens, batch(tokens))
    assert torch.equal(reward, (tokens[:, :1].float() - 2).sigmoid().expand(8, 4))


def test_rewards_are_of_the_delayed_policy_and_of_a_discriminator_without_dropout() -> None:
    module, _ = game(discriminator=Told(lambda x: (x == 5).sum(1).float()))
    with torch.no_grad():
        module.delayed.out.bias.copy_(torch.tensor([0.0, 0, 0, 0, 0, 99]))  # it writes nothing but 5
    tokens = torch.zeros(8, 4, dtype=torch.int64)
    reward = module.rewards(tokens, batch(tokens))
    assert torch.allclose(reward, torch.tensor([3.0, 2, 1, 0]).sigmoid().expand(8, 4))
    dropping, _ = game(discriminator=critic(dropout=0.5))
    dropping.train()
    once, again = (dropping.rewards(tokens, batch(tokens)) for _ in range(2))
    assert torch.equal(once, again) and dropping.discriminator.dropout.training and dropping.delayed.training


# ---------------------------------------------------------------------- the delayed policy
def test_rollouts_of_networks_in_half_are_of_noise_in_full_precision() -> None:
    (model, data), seen = game(), []
    write = model.delayed.rollouts
    model.delayed.rollouts = lambda tokens, z, every: seen.append(z.dtype) or write(tokens, z, every)
    trainer(max_steps=1, precision="bf16-true").fit(model, datamodule=data)
    assert model.last_batch.z.dtype == torch.float32 and seen == [torch.float32]


def test_the_rollout_policy_follows_by_a_fifth() -> None:
    """All but the embedding, which is copied; of the generator's weights after each of its updates."""
    module, data = game(lr_g=0.1, delay=0.8)
    wanted, seen = state(module.generator), 0

    class Look(callbacks.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            nonlocal seen
            for name, value in pl_module.generator.state_dict().items():
                new = value if name == "embedding.weight" else 0.8 * wanted[name] + 0.2 * value
                wanted[name], seen = new.clone(), seen + 1

    trainer(max_steps=3, callbacks=[Look()]).fit(module, datamodule=data)
    for name, value in module.delayed.state_dict().items():
        assert torch.allclose(value, wanted[name], atol=1e-6), name
    assert seen == 3 * 7 and not torch.allclose(module.delayed.out.weight, module.generator.out.weight, atol=1e-3)
    live, _ = game(lr_g=0.1, delay=0.0)
    trainer(max_steps=2).fit(live, datamodule=data)
    assert equal(live.delayed.state_dict(), live.generator.state_dict())


def test_following_copies_buffers() -> None:
    a, b = (LSTMGenerator((4, 3), beta=(beta, 9.0)) for beta in (1.0, 2.0))
    follow(a, b, 0.5)
    assert float(a.beta) == 2


def test_it_goes_on_to_the_bit(tmp_path: Path) -> None:
    """The delayed policy is part of the checkpoint, and of what is loaded."""

    def run(steps: int, ckpt: str | None = None, **options: Any) -> Any:
        pl.seed_everything(3, verbose=False)
        module, data = game(lr_g=0.1, g_steps=2, baseline="batch", **options)
        save = callbacks.ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=3)
        t = trainer(max_steps=steps, callbacks=[save], enable_checkpointing=True)
        t.fit(module, datamodule=data, ckpt_path=ckpt)
        return module

    whole = run(6)
    assert equal(state(whole), state(run(6, str(tmp_path / "step=3.ckpt"))))
    nets = {"generator": LanguageModel((4, 6), 4, 5), "discriminator": critic()}
    assert torch.equal(load(tmp_path / "step=6.ckpt", **nets).sample(5, seed=1), whole.sample(5, seed=1))
    with pytest.warns(UserWarning, match="cuda_graphs has no effect on cpu"):
        assert equal(state(whole), state(run(6, cuda_graphs=True)))


def test_both_policies_begin_with_a_language_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, t = MLE(LanguageModel((4, 6), 4, 5)), trainer(max_steps=2)
    t.fit(first, datamodule=MarkovText(T=4, batch_size=8, one_hot=False))
    t.save_checkpoint(tmp_path / "a.ckpt")
    module, data = game(seed=5, lr_g=1e-9, generator_checkpoint=str(tmp_path / "a.ckpt"))
    trainer(max_steps=1).fit(module, datamodule=data)
    for name, value in first.generator.state_dict().items():
        for network in (module.generator, module.delayed):
            assert torch.allclose(network.state_dict()[name], value, atol=1e-7)


def test_the_discriminator_may_begin_before(tmp_path: Path) -> None:
    """In a fit of its own, in which G stays and needs no rollouts; the next one goes on with it."""
    with pytest.warns(UserWarning, match="lr_g is 0"):
        module, data = game(lr_g=0.0, lr_d=0.1, reward="constant")
    before, t = state(module), trainer(max_steps=2)
    t.fit(module, datamodule=data)
    t.save_checkpoint(tmp_path / "d.ckpt")
    moved = {name for name, value in state(module).items() if not torch.equal(value, before[name])}
    assert moved == {f"discriminator.{name}" for name, _ in module.discriminator.named_parameters()}
    rest, _ = game(lr_g=0.1, lr_d=1e-9)
    trainer(max_steps=3).fit(rest, datamodule=data, ckpt_path=tmp_path / "d.ckpt")
    assert torch.allclose(rest.discriminator.gate.weight, module.discriminator.gate.weight, atol=1e-6)
    assert float((rest.generator.out.weight - module.generator.out.weight).abs().max()) > 0.01
    assert "g/reward" in rest.values


# ---------------------------------------------------------------------- controls
def test_controls() -> None:
    """Each with the rewards that D would have given, or none of them."""
    tokens, found = torch.randint(6, (8, 4)), {}
    for reward in ("discriminator", "constant", "permuted"):
        module, _ = game(reward=reward, discriminator=Told(lambda x: (x * torch.tensor([3.0, 1, 2, 1])).sum(1) / 9))
        if reward == "constant":
            module.delayed.rollouts = None  # not asked
        found[reward] = module.rewards(tokens, batch(tokens))
    assert torch.equal(found["constant"], torch.ones(8, 4))
    told, mixed = (sorted(found[name].tolist()) for name in ("discriminator", "permuted"))
    assert told == mixed and not torch.equal(found["discriminator"], found["permuted"])
    module, _ = game(baseline="batch", discriminator=Told(lambda x: (x * torch.tensor([3.0, 1, 2, 1])).sum(1) / 9))
    baseline = found["discriminator"] - found["discriminator"].mean(0)
    assert torch.allclose(module.rewards(tokens, batch(tokens)), baseline, atol=1e-6)


# ---------------------------------------------------------------------- the discriminator
def test_the_discriminator_is_the_published_formula() -> None:
    """Window by window, of tokens and of one-hot vectors; the published widths are those that a text has room for."""
    torch.manual_seed(0)
    net = critic((5, 3), filters=(4, 6)).double().eval()
    tokens = torch.randint(3, (2, 5))
    embedded, features = net.embedding.weight[tokens], []
    for conv, k in zip(net.convolutions, (1, 2)):
        weight, bias = conv.get_parameter("weight"), conv.get_parameter("bias")
        places = [torch.einsum("nkc,fck->nf", embedded[:, i : i + k], weight) + bias for i in range(6 - k)]
        features.append(torch.stack([p.clamp(min=0) for p in places]).max(0).values)
    c = torch.cat(features, 1)
    g = torch.sigmoid(c @ net.gate.weight.T + net.gate.bias)
    h = g * (c @ net.lifted.weight.T + net.lifted.bias).clamp(min=0) + (1 - g) * c
    wanted = h @ (net.score.weight[1] - net.score.weight[0]) + net.score.bias[1] - net.score.bias[0]
    for x in (tokens, one_hot(tokens, 3, torch.float64)):
        assert torch.allclose(net(x), wanted, atol=1e-12)
    assert [conv.kernel_size for conv in SeqGANDiscriminator((8, 3)).convolutions] == [(k,) for k in range(1, 9)]
    assert 0.95 < float(SeqGANDiscriminator((8, 50)).embedding.weight.abs().max()) <= 1


def test_features_of_what_is_read_token_by_token() -> None:
    """Those of the beginning, with nothing behind it; the state that came stays."""
    torch.manual_seed(0)
    net: Any = loud(critic((6, 5), kernels=(1, 2, 4, 6)))
    tokens, state = torch.randint(5, (3, 6)), None
    for t, token in enumerate(tokens.unbind(1)):
        written = torch.where(torch.arange(6) <= t, tokens, -1)
        found = [net.read_on(token, t, state) for _ in range(2)]
        assert torch.allclose(found[0][0], net.features(written), atol=1e-13)
        assert torch.equal(found[0][0], found[1][0])
        state = found[0][1]


def test_initial_weights_have_the_spread_of_the_code_and_of_glorots_rule() -> None:
    torch.manual_seed(0)
    net = critic(embedding=20, filters=50)
    for layer in (*net.convolutions, net.score):
        weight = layer.get_parameter("weight")
        assert float(weight.std()) == pytest.approx(0.088, rel=0.1)  # of .1, cut at two deviations
        assert float(weight.abs().max()) <= 0.2 and bool((layer.get_parameter("bias") == 0.1).all())
    for layer in (net.lifted, net.gate):
        assert float(layer.weight.std()) == pytest.approx(0.1, rel=0.05) and not bool(layer.bias.any())
        assert float(layer.weight.abs().max()) <= 0.03**0.5


def test_some_features_are_dropped_in_training_alone() -> None:
    torch.manual_seed(0)
    net, tokens = critic(dropout=0.5), torch.randint(6, (8, 4))
    assert not torch.equal(net(tokens), net(tokens)) and torch.equal(net.features(tokens), net.features(tokens))
    assert torch.equal(net.eval()(tokens), net(tokens))


class Twice(nn.Module):
    """Drops before and behind: two passes draw in another order than one."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.score = critic(dropout=0.5), nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Any:
        return self.score(nn.functional.dropout(self.net(x), 0.5)[:, None])[:, 0]


def test_real_and_fake_are_scored_in_one_pass_by_the_dropout_of_two() -> None:
    found = []
    for apart in (False, True):
        torch.manual_seed(0)
        module, data = game(discriminator=critic(dropout=0.5), lr_d=0.1)
        if apart:
            module.score = lambda x, batch, net=module.discriminator: net(x)
        torch.manual_seed(4)
        trainer(max_steps=2).fit(module.double(), datamodule=data)
        found.append(torch.cat([p.flatten() for p in module.parameters()]))
        assert module._joint and found[-1].dtype == torch.float64
    assert torch.allclose(*found, atol=1e-7)  # Adam amplifies rounding where a gradient is zero
    module, data = game(discriminator=Twice())
    trainer(max_steps=1).fit(module, datamodule=data)
    assert not module._joint


def test_who_asks_for_scores_again_gets_others() -> None:
    """By dropout, as without the joint pass."""
    module, _ = game(discriminator=critic(dropout=0.5))
    real, fake = torch.randint(6, (2, 8, 4)).unbind(0)
    module._pair[:] = real, fake
    first, again = (module.score(real, batch(real)) for _ in range(2))
    assert len(first) == len(again) == len(module.score(fake, batch(real))) == 8 and not torch.equal(first, again)


def test_the_last_layer_is_kept_small() -> None:
    module, _ = game()
    tokens = torch.randint(6, (8, 4))
    last = module.discriminator.score
    terms = module.discriminator_terms(batch(tokens), tokens)
    wanted = 0.2 * (last.weight.square().sum() + last.bias.square().sum())
    assert float(terms["l2"]) == pytest.approx(float(wanted)) and terms.keys() == {"adversarial", "l2"}
    assert "l2" not in game(l2_weight=0.0)[0].discriminator_terms(batch(tokens), tokens)


def test_tokens_and_one_hot_vectors_are_the_same_game() -> None:
    found = []
    for vectors in (False, True):
        module, data = game(one_hot=vectors, lr_g=1e-2)
        torch.manual_seed(4)
        trainer(max_steps=3).fit(module, datamodule=data)
        assert module.last_fake.shape == ((8, 4, 6) if vectors else (8, 4))
        found.append(torch.cat([p.flatten() for p in module.parameters()]))
    assert torch.allclose(*found, atol=1e-4)
    module, data = game(one_hot=True, regularizers=[R1()], discriminator=RelGANDiscriminator((4, 6), 8, 4, 6, (2,), 5))
    trainer(max_steps=1).fit(module, datamodule=data)
    assert math.isfinite(module.values["d/r1"])


# ---------------------------------------------------------------------- the density of a text GAN
def test_text_gans_have_a_density(tmp_path: Path) -> None:
    """That of what they write, at each temperature, by the averaged network; without a language model there is none."""
    torch.manual_seed(0)
    net = LSTMGenerator((4, 6), 4, 5)
    rel = RelGAN(net, RelGANDiscriminator((4, 6), 8, 4, 6, (2,), 5), 24)
    tokens = torch.randint(6, (9, 4))
    for module in (game(generator=LanguageModel((4, 6), 4, 5))[0], rel):
        own: Any = module.generator
        assert float(held_out_nll(module, tokens, 0.5)) == pytest.approx(float(own.nll(tokens, 0.5).mean()), rel=1e-5)
    rel.start_ema()
    with torch.no_grad():
        before = float(held_out_nll(rel, tokens))
        net.out.bias[0] += 3
    assert float(held_out_nll(rel, tokens)) == before
    scores = TextMetrics(1, 50, at_start=False)
    trainer(max_steps=1, callbacks=[scores]).fit(rel, datamodule=MarkovText(T=4, batch_size=8))
    assert scores.history[-1]["metrics/nll_gen"] > 1
    assert GAN(ToyGenerator(), ToyDiscriminator(), 2).log_density_bound is None
    chars = GAN(CharGenerator((4, 6), 3, 4, 1), critic(), 3)
    assert chars.log_density_bound is None
    with pytest.raises(ValueError, match="metrics must be without 'nll_gen' for GAN, which has no density"):
        trainer(max_steps=1, callbacks=[TextMetrics(metrics=["nll_gen"])]).fit(chars, datamodule=MarkovText(T=4))


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    "made, told",
    [
        (lambda: game(rollouts=0), "rollouts must be an integer >= 1, got 0"),
        (lambda: game(delay=1.0), r"delay must be in \[0, 1\), got 1.0"),
        (lambda: game(baseline="mean"), "baseline must be one of none, batch, got 'mean'"),
        (lambda: game(reward="ones"), "reward must be one of discriminator, constant, permuted, got 'ones'"),
        (
            lambda: game(reward="constant", baseline="batch"),
            "baseline must be 'none' with reward='constant', of which it would leave nothing, got 'batch'",
        ),
        (lambda: game(l2_weight=-1.0), "l2_weight must be a finite number >= 0, got -1.0"),
        (lambda: game(loss="hinge"), "loss must be non_saturating, got 'hinge'"),
        (
            lambda: game(discriminator=ToyDiscriminator()),
            "discriminator must have its last layer as score for l2_weight=0.2, got ToyDiscriminator",
        ),
        (lambda: game(discriminator=critic((4, 7))), "discriminator.vocabulary_size must be 6 as G's, got 7"),
        (lambda: critic((4,)), r"shape must be \(T, V\), .* got \(4,\)"),  # type: ignore[arg-type]
        (lambda: critic((1, 3), kernels=(2, 3)), r"kernels must hold one of at most 1, .* got \(2, 3\)"),
        (lambda: critic(kernels=(0,)), r"kernels must be integers >= 1, at least one, got \(0,\)"),
        (lambda: critic(filters=(4, 4, 4)), "filters must be one number, or one for each of 2 kernels, got 3"),
        (lambda: critic(dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
        (lambda: LanguageModel.noise_length((2,)), r"data must be texts \(T, V\) .* samples of shape \(2,\)"),
    ],
)
def test_bad_input(made: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        made()


def test_a_generator_that_is_no_language_model() -> None:
    for net, missing in ((ToyGenerator(), "length"), (CharGenerator((4, 6), 3, 4, 1), "nll")):
        told = f"generator must be a language model, got {type(net).__name__} without {missing}"
        with pytest.raises(TypeError, match=told):
            game(generator=net)


@pytest.mark.parametrize(
    "options, told",
    [
        ({"regularizers": [R1()]}, r"real samples must be one-hot \(one_hot=True\) for the penalty 'r1', got tokens"),
        (
            {"generator": LanguageModel((5, 6))},
            r"latent_dim=4 must be .*z must be of shape \(N, 5\), .* got \(8, 4\)",
        ),
        ({"discriminator": RelGANDiscriminator((4, 6), 8, 4, 6, (2,), 5)}, r"The discriminator failed on real samples"),
    ],
)
def test_data_that_do_not_fit(options: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        trainer(max_steps=1).fit(*game(**options)[:1], datamodule=MarkovText(T=4, batch_size=8, one_hot=False))
    with pytest.raises(ValueError, match="data must have as many symbols as the network, 6, got 9"):
        trainer(max_steps=1).fit(game()[0], datamodule=MarkovText(K=9, T=4, one_hot=False))


def test_the_baseline_of_one_text_leaves_nothing_of_its_reward() -> None:
    alone = MarkovText(T=4, batch_size=1, one_hot=False)
    trainer(max_steps=1).fit(game()[0], datamodule=alone)
    with pytest.raises(ValueError, match="baseline must be 'none' with a batch of one text, of which it would leave"):
        trainer(max_steps=1).fit(game(baseline="batch")[0], datamodule=alone)
    trainer(max_steps=1).fit(game(baseline="batch", g_batch_factor=4)[0], datamodule=alone)


def test_a_penalty_without_slopes_is_taken_of_tokens() -> None:
    module = game(regularizers=[ConsistencyTerm(feature_weight=0.0)])[0]
    trainer(max_steps=1).fit(module, datamodule=MarkovText(T=4, batch_size=8, one_hot=False))
    assert "d/consistency" in module.values


# ---------------------------------------------------------------------- learning
def toy(seed: int = 0, **options: Any) -> tuple[SeqGAN, MarkovText]:
    """The game of configs/markov/seq_gan.yaml, after a few updates by maximum likelihood."""
    data = MarkovText(one_hot=False)
    torch.manual_seed(seed)
    generator, discriminator = LanguageModel(data.shape, 16, 32), SeqGANDiscriminator(data.shape, 16, (1, 2, 3, 4), 32)
    trainer(max_steps=8).fit(MLE(generator), datamodule=data)
    options = {"rollouts": 4, "d_steps": 5, "lr_d": 2e-3, "baseline": "batch", **options}
    return SeqGAN(generator, discriminator, 8, **options), data


def test_the_first_updates_lower_js() -> None:
    """By .13 to .17 for five seeds; without G's term it stays, with permuted rewards it rises."""
    model, data = toy(rollouts=2)
    before = js2(model, data)
    trainer(max_steps=12).fit(model, datamodule=data)
    assert js2(model, data) < before - 0.07


@pytest.mark.slow
def test_it_learns_the_toy_language() -> None:
    """.02 to .05 for five seeds; it begins at .23 to .28."""
    model, data = toy()
    trainer(max_steps=60).fit(model, datamodule=data)
    assert js2(model, data) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("mutation", ["no gradient", "constant", "permuted"])
def test_without_rewards_of_its_own_it_does_not_learn(mutation: str) -> None:
    control: dict[str, Any] = {"permuted": {"reward": mutation}, "constant": {"reward": mutation, "baseline": "none"}}
    model, data = toy(**control.get(mutation, {}))
    if mutation == "no gradient":
        model.generator_terms = lambda batch, fake: {"adversarial": 0 * model.generator.nll(fake).sum()}  # type: ignore
    trainer(max_steps=60).fit(model, datamodule=data)
    assert js2(model, data) > 0.2


@pytest.mark.slow
def test_from_a_language_model_to_a_curve_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three fits: the language model, D alone, the game; on data of another length than the recipe's."""
    monkeypatch.chdir(tmp_path)
    quick = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--data.T", "5"]
    recipe = ["fit", "--config", str(CONFIGS / "markov/seq_gan.yaml"), *quick]
    mle = ["--model", "MLE", "--model.generator", "LanguageModel", "--model.generator.embedding", "16"]
    main([*recipe, *mle, "--trainer.max_steps", "8", "--name", "mle"])
    begin = ["--model.generator_checkpoint", "runs/mle"]
    stays = ["--model.lr_g", "0", "--model.reward", "constant", "--model.baseline", "none"]
    main([*recipe, *begin, *stays, "--trainer.max_steps", "2", "--name", "d"])
    first, before = load("runs/mle"), load("runs/d")
    assert before.latent_dim == 5 and torch.equal(before.sample(50, seed=1), first.sample(50, seed=1))
    main([*recipe, "--ckpt_path", "runs/d", "--trainer.max_steps", "6"])
    after: Any = load("runs/d")
    assert not torch.equal(after.sample(50, seed=1), first.sample(50, seed=1))
    assert not torch.equal(after.generator.out.weight, after.delayed.out.weight)
    capsys.readouterr()
    main(["sweep", "--ckpt_path", "runs/d", "--temperatures", "0.5", "1", "--samples", "60"])
    assert "nll_gen" in capsys.readouterr().out
    main(["predict", "--ckpt_path", "runs/d", "--temperature", "0.5"])
    assert re.fullmatch("([a-f]{5}\n){64}", Path("runs/d/predictions/samples.txt").read_text())
    for wrong, told in (
        (["--model.rollouts", "0"], "rollouts must be an integer >= 1, got 0"),
        (["--model.generator", "CharGenerator"], "generator must be a language model, got CharGenerator without nll"),
        (["--data.one_hot", "true", "--model.discriminator", "ToyDiscriminator"], "must have its last layer as score"),
    ):
        with pytest.raises(SystemExit, match=told):
            main([*recipe, *wrong, "--name", "wrong"])
    assert not Path("runs/wrong").exists()
