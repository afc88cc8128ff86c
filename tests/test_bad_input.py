"""Every mistake that is easy to make is told in one sentence, before the first optimizer step."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from common import OTHERS, build, equal, make, make_images, plain, state, trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_gans import (
    DCGAN,
    DDPM,
    GAN,
    MLE,
    PRCGAN,
    SNGAN,
    SRNGAN,
    TECHNIQUES,
    VAE,
    WGAN,
    WGANGP,
    ExemplarVAE,
    GANModule,
    LeakGAN,
    RobustWGAN,
    StyleGAN2,
    TransGAN,
    checks,
    datamodules,
    optim,
    regularizers,
    samplers,
)
from lightning_gans import callbacks as own_callbacks
from lightning_gans import networks as own_networks
from lightning_gans.callbacks import DirectionCharts, GenerativeMetrics, SampleGrid
from lightning_gans.compat.lightning import callbacks, utilities
from lightning_gans.datamodules import Blob, Digits, Gaussian1D, MemoryLoader, Ring, Threshold
from lightning_gans.networks import DCGANDiscriminator, DCGANGenerator, ToyDiscriminator, ToyGenerator
from lightning_gans.regularizers import R1, GradientPenalty

X, Y = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 4


# ---------------------------------------------------------------------- a foreign project's networks and loaders
def generator(out: int = 2, latent_dim: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(latent_dim, 8), nn.ReLU(), nn.Linear(8, out))


def discriminator(inputs: int = 2, *end: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 1), *(end or (nn.Flatten(0),)))


class Conditional(nn.Module):
    """Adds an embedding of the label to its input; says how many classes it knows if told to."""

    def __init__(self, net: nn.Module, width: int, num_classes: int | None = 4) -> None:
        super().__init__()
        self.net, self.embed = net, nn.Embedding(4, width)
        if num_classes is not None:
            self.num_classes = num_classes

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.net(x + self.embed(labels))


class Nothing(IterableDataset):
    """A stream that has no length and no item."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(())


def loader(*columns: Tensor, **options: Any) -> DataLoader:
    return DataLoader(TensorDataset(*columns), **{"batch_size": 4, **options})


class Steps(callbacks.Callback):
    """Counts optimizer steps."""

    count = 0

    def on_before_optimizer_step(self, *args: Any) -> None:
        self.count += 1


def refused(module: GANModule, data: Any, error: type[Exception] = ValueError) -> str:
    """Fit, which has to fail before the first optimizer step and leave the networks alone; the message."""
    steps, before = Steps(), state(module)
    with pytest.raises(error) as caught:
        t = trainer(max_steps=2, max_epochs=3, callbacks=[steps])
        t.fit(module, **({"datamodule": data} if hasattr(data, "setup") else {"train_dataloaders": data}))
    assert steps.count == 0 and equal(before, state(module))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_foreign_project_works_when_there_is_no_mistake() -> None:
    for module, data in (
        (WGANGP(generator(), discriminator(), 3), loader(X)),
        (WGANGP(Conditional(generator(), 3), Conditional(discriminator(), 2), 3), loader(X, Y)),
        (WGANGP(generator(), discriminator(), 3), loader(X, Y, torch.zeros(40))),
    ):
        trainer(max_steps=2).fit(module, train_dataloaders=data)


# ---------------------------------------------------------------------- shapes
def test_wrong_image_shape_for_our_nets() -> None:
    message = refused(make_images("gan"), plain(shape=(1, 28, 28)))
    assert "generator's output has shape (4, 1, 8, 8)" in message and "real samples have (4, 1, 28, 28)" in message


@pytest.mark.parametrize("net", [DCGANGenerator, DCGANDiscriminator])
@pytest.mark.parametrize("shape", [(1, 30, 30), (1, 32, 30), (2,)])
def test_shape_that_a_net_cannot_be_built_for(net: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape=\(C, H, W\) with H and W multiples of 4 from 16 on, or both 8, got"):
        net(shape=shape)


def test_wrong_shape_for_the_discriminator_alone() -> None:
    message = refused(WGANGP(generator(), discriminator(3), 3), loader(X))
    assert "discriminator failed on real samples of shape (4, 2)" in message
    ours = GAN(DCGANGenerator(shape=(1, 8, 8), latent_dim=3, width=4), DCGANDiscriminator(shape=(3, 8, 8), width=4), 3)
    assert "(4, 1, 8, 8)" in refused(ours, plain(shape=(1, 8, 8)))


NO_NOISE = {"seq_gan", "leak_gan", "style_transfer"}  # which take no such generator


@pytest.mark.parametrize("name", sorted(TECHNIQUES.keys() - NO_NOISE))
def test_generator_output_that_does_not_match(name: str) -> None:
    message = refused(build(name, generator(5), discriminator(), discriminator()), loader(X))
    assert "generator's output has shape (4, 5)" in message and "real samples have (4, 2)" in message


def test_discriminator_of_n_times_2() -> None:
    message = refused(WGANGP(generator(), discriminator(2, nn.Linear(1, 2)), 3), loader(X))
    assert "one score per sample, shape (4,), got (4, 2)" in message


def test_swapped_networks() -> None:
    assert "generator's output has shape" in refused(WGANGP(discriminator(3), generator(), 3), loader(X))


@pytest.mark.parametrize("technique", [WGANGP, GAN])
def test_latent_dim_mismatch(technique: type[GANModule]) -> None:
    message = refused(technique(generator(latent_dim=3), discriminator(), latent_dim=7), loader(X))
    assert "latent_dim=7" in message and "noise of shape (4, 7)" in message


def test_latent_dim_mismatch_of_our_nets() -> None:
    nets = DCGANGenerator(shape=(1, 8, 8), latent_dim=5, width=4), DCGANDiscriminator(shape=(1, 8, 8), width=4)
    message = refused(GAN(*nets, latent_dim=3), plain(shape=(1, 8, 8)))
    assert "(4, 3)" in message and "5" in message


# ---------------------------------------------------------------------- settings
@pytest.mark.parametrize("end", [(nn.Flatten(0), nn.Sigmoid()), (nn.Sigmoid(), nn.Flatten(0)), (nn.LogSigmoid(),)])
@pytest.mark.parametrize("technique", [GAN, DCGAN, WGAN, WGANGP])
def test_a_sigmoid_is_warned_of(technique: type[GANModule], end: tuple[nn.Module, ...]) -> None:
    with pytest.warns(UserWarning, match=r"discriminator ends in (Log)?Sigmoid, but the losses expect raw scores"):
        technique(generator(), discriminator(2, *end), 3)


def test_no_warning_without_a_sigmoid_at_the_end(recwarn: pytest.WarningsRecorder) -> None:
    GAN(generator(), nn.Sequential(nn.Linear(2, 8), nn.Sigmoid(), nn.Linear(8, 1), nn.Flatten(0)), 3)
    assert not [w for w in recwarn if "raw scores" in str(w.message)]


@pytest.mark.parametrize("name", TECHNIQUES)
@pytest.mark.parametrize("argument", ["d_steps", "g_steps", "g_batch_factor", "accumulate_d", "accumulate_g"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_counts_below_one(name: str, argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be an integer >= 1, got {value!r}"):
        make(name, **{argument: value})


@pytest.mark.parametrize(
    ("check", "wanted"),
    [
        (checks.positive, "a finite number > 0"),
        (checks.not_negative, "a finite number >= 0"),
        (checks.share, "in [0, 1]"),
        (checks.inside, "in (0, 1)"),
    ],
)
@pytest.mark.parametrize("value", ["10", None, [1], torch.zeros(2)])
def test_what_is_no_number(check: Callable[..., None], wanted: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^rho must be {re.escape(wanted)}, got {re.escape(repr(value))}\.$"):
        check(rho=value)
    check(rho=torch.tensor(0.5))


@pytest.mark.parametrize("value", [0.5, None, ("a", 1), "ab", (0.5,)])
def test_what_is_no_pair(value: Any) -> None:
    told = re.escape(str(value) if isinstance(value, tuple) else repr(value))
    with pytest.raises(ValueError, match=rf"^betas must be two numbers in \[0, 1\), got {told}\.$"):
        WGANGP(generator(), discriminator(), latent_dim=3, betas=value)
    with pytest.raises(ValueError, match=rf"^value_range must be \(low, high\) with low < high, got {told}\.$"):
        checks.interval("value_range", value)


@pytest.mark.parametrize("value", [0, -3])
def test_latent_dim_below_one(value: int) -> None:
    with pytest.raises(ValueError, match=f"latent_dim must be an integer >= 1, got {value}"):
        GAN(generator(), discriminator(), value)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_negative_weight_of_a_penalty(weight: float) -> None:
    for regularizer in (GradientPenalty, R1):
        with pytest.raises(ValueError, match=rf"weight must be a finite number >= 0, got {weight}"):
            regularizer(weight=weight)
    for name, argument in (("wgan_gp", "gp_weight"), ("ct_gan", "ct_weight"), ("wgan_alp", "alp_weight")):
        with pytest.raises(ValueError, match=f"^{argument} must be a finite number >= 0, got {weight}\\.$"):
            make(name, **{argument: weight})


LOSSES = {"unrolled": "minimax", "wgan": "wasserstein", "wgan_gp": "wasserstein", "ct_gan": "wasserstein",
          "wgan_alp": "wasserstein"}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_is_not_taken_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"^loss must be {LOSSES[name]}, got 'hinge'\\.$"):
        make(name, loss="hinge")
    make(name, loss=LOSSES[name])


def test_pairs_need_as_many_fakes_as_real_samples() -> None:
    with pytest.raises(ValueError, match=r"^g_batch_factor must be 1 with loss='relativistic', .*, got 2\.$"):
        make("sn_gan", loss="relativistic")  # whose default is two batches
    make("sn_gan", loss="relativistic", g_batch_factor=1)


@pytest.mark.parametrize(("name", "argument", "term"), [
    ("wgan_gp", "gp_weight", "gradient_penalty"), ("ct_gan", "ct_weight", "consistency"),
    ("wgan_alp", "alp_weight", "adversarial_lipschitz"), ("prc_gan", "ct_weight", "consistency"),
    ("robust_wgan", "gp_weight", "gradient_penalty")])  # fmt: skip
def test_a_penalty_of_weight_0_is_no_term(name: str, argument: str, term: str) -> None:
    """Then its name is free, for a regularizer say, and BatchNorm is welcome."""
    assert term in make(name, **{argument: 1.0}).own_terms
    module = make(name, **{argument: 0.0})
    assert term not in module.own_terms
    trainer(max_steps=1).fit(module, plain())
    assert f"d/{term}" not in module.values


@pytest.mark.parametrize(
    ("make_it", "sentence"),
    [
        (lambda: make("gan", betas=(0.5,)), r"betas must be two numbers in \[0, 1\), got \(0.5,\)"),
        (lambda: optim.OptimisticAdam([torch.zeros(1)], betas=(0.5, 0.9, 0.9)), "betas must be two numbers"),
        (lambda: make("wgan_alp", epsilon=(0.1,)), r"epsilon must be 0 < least <= most, got \(0.1,\)"),
        (lambda: make("wgan_alp", clip=(-1.0,)), r"clip must be \(low, high\) with low < high or None, got \(-1.0,\)"),
        (lambda: Digits(value_range=(0.0, 1.0, 2.0)), r"value_range must be \(low, high\)"),
        (lambda: GenerativeMetrics(5, value_range=(1.0, -1.0)), r"value_range must be \(low, high\)"),
        (lambda: Digits(value_range=(0.0, math.inf)), r"value_range must be two finite numbers, got \(0.0, inf\)"),
        (lambda: DirectionCharts(value_range=()), r"value_range must be \(low, high\) .* got \(\)"),
        (lambda: Blob(centre=(4.0,)), r"modes of Blob must be finite, \(K, 2\), got \[\[4.0\]\]"),
        (lambda: Gaussian1D(mean=math.nan), "mean must be a finite number, got nan"),
        (lambda: Ring(radius=math.inf), "radius must be a finite number > 0, got inf"),
        (lambda: Threshold(math.nan), "value must be a finite number, got nan"),
    ],
)
def test_pairs_are_pairs_and_numbers_finite(make_it: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_it()


def test_other_settings() -> None:
    with pytest.raises(ValueError, match=r"c must be a finite number > 0, got -0.01"):
        make("wgan", c=-0.01)
    with pytest.raises(ValueError, match=r"loss must be one of minimax, .*got 'hinged'"):
        make("gan", loss="hinged")
    with pytest.raises(ValueError, match=r"order must be one of d_first, g_first, got 'g'"):
        make("gan", order="g")
    with pytest.raises(ValueError, match="double_backward must be one of sparse, linear, compiled, plain, got 'fast'"):
        make("gan", double_backward="fast")
    with pytest.raises(ValueError, match="g_steps must be 1 with order='g_first', got 2"):
        make("gan", order="g_first", g_steps=2)
    with pytest.raises(ValueError, match=r"clip_grad_d must be a finite number > 0, got 0"):
        make("gan", clip_grad_d=0)
    with pytest.raises(ValueError, match=r"different names, got 'gradient_penalty' more than once"):
        make("wgan_gp", regularizers=[GradientPenalty(1.0)])


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.SyncBatchNorm])
def test_batch_norm_with_a_penalty(norm: Any) -> None:
    net = nn.Sequential(nn.Linear(2, 8), norm(8), nn.Linear(8, 1), nn.Flatten(0))
    with pytest.raises(
        ValueError, match=r"'gradient_penalty' is per sample, but BatchNorm \(discriminator layer '1'\)"
    ):
        WGANGP(generator(), net, 3)
    WGAN(generator(), net, 3)  # without a penalty it is welcome


# ---------------------------------------------------------------------- labels
@pytest.mark.parametrize("who", ["generator", "discriminator"])
@pytest.mark.parametrize("data", [loader(X), DataLoader(X, 4)])  # type: ignore[arg-type]
def test_label_missing(who: str, data: DataLoader) -> None:
    g = Conditional(generator(), 3) if who == "generator" else generator()
    d = Conditional(discriminator(), 2) if who == "discriminator" else discriminator()
    message = refused(WGANGP(g, d, 3), data)
    assert f"The {who} is conditional, but the data loader yields no labels" in message and "(x, labels)" in message


def test_label_missing_for_our_nets() -> None:
    nets = (DCGANGenerator(shape=(1, 8, 8), latent_dim=3, width=4, num_classes=10),
            DCGANDiscriminator(shape=(1, 8, 8), width=4))  # fmt: skip
    assert "The generator is conditional" in refused(GAN(*nets, 3), plain(shape=(1, 8, 8)))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (Y.float(), "labels must be 4 integers, one class per real sample, got shape (4,) of torch.float32"),
        (Y[:, None], "labels must be 4 integers, one class per real sample, got shape (4, 1) of torch.int64"),
        (Y + 1, "labels must lie in 0..3, which the generator knows, got 1..4"),
        (Y - 1, "labels must lie in 0..3, which the generator knows, got -1..2"),
    ],
)
def test_labels_that_the_nets_cannot_take(labels: Tensor, words: str) -> None:
    module = WGANGP(Conditional(generator(), 3), Conditional(discriminator(), 2), 3)
    assert words in refused(module, loader(X, labels))


@pytest.mark.parametrize("who", ["generator", "discriminator"])
def test_labels_beyond_an_embedding_of_unknown_size(who: str) -> None:
    g = Conditional(generator(), 3, None) if who == "generator" else generator()
    d = Conditional(discriminator(), 2, None) if who == "discriminator" else discriminator()
    message = refused(WGANGP(g, d, 3), loader(X, Y + 4))
    assert f"The {who} failed on" in message and "labels 4..7" in message


def test_labels_asked_of_sample() -> None:
    module = WGANGP(Conditional(generator(), 3), discriminator(), 3)
    with pytest.raises(ValueError, match=r"labels must have shape \(3,\), one per sample, got \[1, 2, 0\]"):
        module.sample(3, cast(Any, [1, 2, 0]))
    with pytest.raises(ValueError, match=r"seed must be an integer >= 0, got 1\.5"):
        module.sample(3, seed=cast(Any, 1.5))
    with pytest.raises(ValueError, match=r"labels must have shape \(3,\), one per sample, got \(2,\)"):
        module.sample(3, labels=torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"labels must lie in 0..3, got 4..4"):
        module.sample(1, labels=torch.tensor([4]))
    with pytest.raises(ValueError, match=r"labels were given, but the generator takes none"):
        make("gan").sample(1, labels=torch.tensor([0]))
    with pytest.raises(ValueError, match=r"n must be an integer >= 1, got 0"):
        make("gan").sample(0)


# ---------------------------------------------------------------------- data
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_in_data(bad: float) -> None:
    x = X.clone()
    x[1, 0] = bad
    assert "NaN or infinite" in refused(WGANGP(generator(), discriminator(), 3), loader(x))
    with pytest.raises(ValueError, match=r"data must be finite, but 1 of its 40 items hold NaN or infinite values"):
        MemoryLoader(x, None, 4)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (
            torch.linspace(-1, 1, 40),
            "weights must be 4 numbers >= 0, one per real sample, got shape (4,) with minimum -1",
        ),
        (torch.full((40,), math.nan), "weights must be 4 numbers >= 0"),
    ],
)
def test_negative_weights_of_samples(weights: Tensor, words: str) -> None:
    assert words in refused(WGANGP(generator(), discriminator(), 3), loader(X, Y, weights))


def test_batches_that_are_no_samples() -> None:
    module = WGANGP(generator(), discriminator(), 3)
    message = refused(module, loader((X * 50).byte()), TypeError)
    assert "floating-point tensor, got torch.uint8: scale images" in message
    message = refused(module, loader(X.long()), TypeError)
    assert "floating-point tensor, got torch.int64: of text take one_hot=True" in message
    message = refused(module, DataLoader([{"point": x} for x in X], 4))  # type: ignore[arg-type]
    assert message.startswith("columns={'real': ...} must name the real samples of batches with point")
    message = refused(module, loader(X.double()))
    assert "failed on real samples" in message and "dtype" in message


@pytest.mark.parametrize(
    "data",
    [DataLoader([], 4), DataLoader(Nothing(), 4), loader(X, batch_size=64, drop_last=True)],  # type: ignore[arg-type]
    ids=["empty", "empty stream", "batch larger than data set"],
)
def test_a_loader_without_a_batch(data: DataLoader) -> None:
    message = refused(WGANGP(generator(), discriminator(), 3), data)
    assert "yields no batch" in message and "larger than the data set" in message


def test_a_list_of_loaders_is_no_batch_of_columns() -> None:
    message = refused(make("gan"), [loader(X), loader(X)])
    assert message.startswith("The training data must be one loader, got a list of 2 (DataLoader): join the data sets")
    assert "got a list of 3 (Tensor): join" in refused(make("gan"), [X, X, X])
    module = make("gan", columns={"real": 1})
    trainer(max_steps=1).fit(module, [DataLoader(X, 4), DataLoader(X + 9, 4)])  # type: ignore[arg-type]
    assert module.last_batch is not None and float(module.last_batch.real.mean()) > 5


def test_real_samples_that_are_none() -> None:
    @dataclass
    class Pack:
        x: Tensor

    both = {"a": DataLoader(X[:8], 4), "b": DataLoader(X, 4)}  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^real samples must be a tensor .* got NoneType \(a loader has ended:"):
        trainer(max_epochs=1).fit(make("gan", columns={"real": "a"}), utilities.CombinedLoader(both, "max_size"))
    packed = DataLoader(X, 4, collate_fn=lambda rows: Pack(torch.stack(rows)))  # type: ignore[arg-type]
    assert "got Pack: yield x, (x, labels)" in refused(make("gan"), packed, TypeError)
    assert "got a number: yield" in refused(make("gan"), DataLoader(X[:, 0], None), TypeError)  # type: ignore[arg-type]


def test_a_generator_as_loader_is_used_up_after_an_epoch() -> None:
    with pytest.raises(ValueError, match=r"^The training data loader yields no batch in another epoch: an iterator"):
        trainer(max_epochs=2).fit(make("gan"), (X[i : i + 4] for i in range(3)))


def test_empty_data_set_in_our_loaders() -> None:
    with pytest.raises(ValueError, match="The data set is empty"):
        MemoryLoader(torch.empty(0, 2), None, 4)


def test_batch_larger_than_our_data_set() -> None:
    module = make_images("gan")
    message = refused(module, Digits(batch_size=2000))
    assert "batch_size 2000 is larger than the data set of 1500 items" in message
    assert "items is 5000, but Digits has only 1500" in refused(module, Digits(items=5000))
    for data in (Digits, Ring):
        with pytest.raises(ValueError, match=r"batch_size must be an integer >= 1, got 0"):
            data(batch_size=0)


# ---------------------------------------------------------------------- networks and players
class Both(nn.Module):
    """A network that returns more than it is asked for."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        return self.net(x), x


class Index(Both):
    """A network that takes labels by a name of its own."""

    def forward(self, x: Tensor, class_idx: Tensor) -> Tensor:
        return cast(Tensor, self.net(x))


@pytest.mark.parametrize(
    ("make_it", "sentence"),
    [
        (
            lambda: GAN(ToyGenerator, discriminator(), 3),
            "generator must be a network, got the class ToyGenerator",
        ),
        (lambda: WGANGP(generator(), ToyDiscriminator, 3), "discriminator must be a network, got the class ToyDis"),
        (lambda: make("gan", regularizers=R1()), r"regularizers must be a list, got R1: give \[R1\(\.\.\.\)\]"),
        (lambda: make("gan", regularizers=None), r"regularizers must be a list, got NoneType\.$"),
        (lambda: make("gan", regularizers=[R1]), r"regularizers must be objects, got the class R1: give R1\("),
        (
            lambda: make("gan", optimizer_g=torch.optim.Adam(generator().parameters())),
            "optimizer_g must be a function of parameters that makes one, got a Adam: give lambda x: Adam",
        ),
        (
            lambda: make("gan", scheduler_d=0.5),
            "scheduler_d must be a function of an optimizer that makes one, got a fl",
        ),
    ],
)
def test_classes_and_objects_in_each_others_place(make_it: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(TypeError, match=f"^{sentence}"):
        make_it()


@pytest.mark.parametrize(
    ("argument", "make_it"),
    [
        ("generator", lambda net: GAN(net, discriminator(), 3)),
        ("discriminator", lambda net: SNGAN(generator(), net, 3)),
        ("discriminator", lambda net: SRNGAN(generator(), net, 3)),
        ("generator", lambda net: TransGAN(net, discriminator(), 3)),
        ("generator", lambda net: StyleGAN2(net, discriminator(), 3)),
        ("discriminator", lambda net: LeakGAN(generator(), net, 3)),
        ("generator", lambda net: MLE(net)),
        ("classifier", lambda net: PRCGAN(generator(), discriminator(), 3, classifier=net, ct_weight=0)),
        ("weight_network", lambda net: RobustWGAN(generator(), discriminator(), 3, weight_network=net)),
        ("denoiser", lambda net: DDPM(net, (2,))),
        ("encoder", lambda net: VAE(net, generator(), 3)),
        ("decoder", lambda net: ExemplarVAE(generator(), net, 3)),
    ],
)
def test_no_network_in_the_place_of_one(argument: str, make_it: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=f"^{argument} must be a network, got the class Linear: call it"):
        make_it(nn.Linear)
    with pytest.raises(TypeError, match=f"^{argument} must be a network, got 'resnet'"):
        make_it("resnet")


@pytest.mark.parametrize("several", [set, iter])
def test_regularizers_in_any_collection(several: Callable[[Any], Any]) -> None:
    assert [type(r) for r in make("gan", regularizers=several([R1()])).regularizers] == [R1]


def test_networks_that_return_no_tensor_or_take_something_else() -> None:
    message = refused(GAN(Both(generator()), discriminator(), 3), loader(X), TypeError)
    assert message.startswith("The generator must return a tensor, got a tuple: wrap it")
    message = refused(GAN(generator(), Both(discriminator()), 3), loader(X), TypeError)
    assert message.startswith("The discriminator must return a tensor, got a tuple: wrap it")
    message = refused(GAN(Index(generator()), discriminator(), 3), loader(X))
    assert "failed on noise of shape (4, 3); labels are given to an argument of the name labels, label, y" in message


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_a_network_that_is_frozen(name: str) -> None:
    module, own = make("gan"), make("gan")
    getattr(module, name).requires_grad_(False)
    message = refused(module, loader(X))
    assert message.startswith(
        f"The player {name[0]!r} must have parameters that require a gradient, got none in {name}: call "
        "requires_grad_(True) (load gives a frozen model)."
    )

    class Freezing(callbacks.Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            getattr(pl_module, name).requires_grad_(trainer.current_epoch == 0)

    with pytest.raises(ValueError, match=f"^The player {name[0]!r} must have .*, or let it rest by every= or due"):
        trainer(max_epochs=2, callbacks=[Freezing()]).fit(own, loader(X))


def test_a_parameter_that_two_players_train() -> None:
    nets = generator(), discriminator()
    nets[1][0].bias = nets[0][0].bias
    message = refused(GAN(*nets, 3), loader(X))
    assert message.startswith(
        "Parameters must belong to one player each, got one that several train (generator.0.bias, d"
    )
    nets[0][0].bias.requires_grad_(False)
    trainer(max_steps=1).fit(GAN(*nets, 3), loader(X))

    class Whole(GAN):
        """It gives its optimizers what is frozen, too."""

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(net.parameters(), 0.1) for net in (self.discriminator, self.generator)]

    trainer(max_steps=1).fit(Whole(*nets, 3), loader(X))


def test_a_module_that_is_compiled_as_a_whole() -> None:
    words = r"^GAN must not be compiled itself, now or in an earlier predict .* \(torch\.compile\(discrim.* fit it"
    module = make("gan")
    compiled: Any = torch.compile(module, backend="eager")
    with pytest.raises(ValueError, match=words):
        trainer(max_steps=1).fit(compiled, plain())
    trainer(max_steps=1).fit(module, plain())
    trainer().predict(compiled, [4])
    with pytest.raises(ValueError, match=words):
        trainer(max_steps=1).fit(module, plain())
    trainer(max_steps=1).fit(module, plain())


# ---------------------------------------------------------------------- files
def test_unwritable_output_folder(tmp_path: Path) -> None:
    """A file stands where the folder would have to be: not even root can write there."""
    (tmp_path / "file").touch()
    module, before, steps = make("gan"), state(make("gan")), Steps()
    grid = SampleGrid(dirpath=str(tmp_path / "file" / "run"))
    with pytest.raises(ValueError, match=r"SampleGrid: dirpath .*file/run/samples cannot be used"):
        trainer(max_steps=2, callbacks=[grid, steps]).fit(module, train_dataloaders=plain())
    assert steps.count == 0 and equal(before, state(module))


# ---------------------------------------------------------------------- kinds of numbers
NOT_BUILT = {"BoostedRatio", "Calibrated", "Chains", "Guided", "HuggingFace", "Images", "LeakGANGenerator", "RatioHead"}
NOT_BUILT |= {"Regularizer", "Report", "Resampled", "TextFile"}
UNUSED = {"prc_gan": {"lr_c", "clip_grad_c"}}
BUILT_OF: dict[str, tuple[Any, ...]] = {
    "Attention": (8,),
    "Classes": ([0],),
    "ConditionalBatchNorm2d": (4, 2),
    "Contaminated": (Ring(),),
    "FreshLoader": (lambda n, generator: X, 4, 2),
    "LayerNorm": (4,),
    "MemoryLoader": (X, None, 4),
    "ModulatedConv2d": (4, 4, 4),
    "OneHot": (5,),
    "ProjectionHead": (4,),
    "RelationalMemory": (4,),
    "TailSampled": (datamodules.RareTail1D(), Threshold(1.0)),
    "TailSampler": (X[:, 0] > 1, 0.5, 4),
    "Threshold": (1.0,),
    "TransformerBlock": (8,),
    optim.__name__: ([nn.Parameter(torch.zeros(2))],),
    samplers.__name__: (make("gan"),),
}


def numbers_of(cls: type) -> dict[str, bool]:
    """The arguments that are one number or None, also those that a base class is handed; whether they are whole."""
    found: dict[str, bool] = {}
    for base in inspect.getmro(cls):
        if base.__module__.startswith("lightning_gans") and "__init__" in vars(base):
            given = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
            for name, kinds in ((p.name, set(str(p.annotation).split(" | "))) for p in given):
                if kinds <= {"int", "float", "None"}:
                    found.setdefault(name, "float" not in kinds)
            if all(p.kind is not p.VAR_KEYWORD for p in given):
                break
    return found


def builders() -> list[Any]:
    """Of each public class that takes numbers: what builds it, given some of them."""
    found = []
    for package in (own_callbacks, datamodules, own_networks, regularizers, samplers, optim):
        for cls in (getattr(package, name) for name in package.__all__ if name not in NOT_BUILT):
            if isinstance(cls, type) and not inspect.isabstract(cls) and not issubclass(cls, Exception):
                given = BUILT_OF.get(package.__name__, BUILT_OF.get(cls.__name__, ()))
                found.append(partial(cls, **dict(zip(inspect.signature(cls).parameters, given))))
    models = [partial(make, name) for name in [*TECHNIQUES, *OTHERS, "prc_gan_clip"]]
    return [*(pytest.param(b, id=b.func.__name__) for b in found), *(pytest.param(b, id=b.args[0]) for b in models)]


@pytest.mark.parametrize("built", builders())
def test_no_argument_takes_another_kind_of_number(built: Any) -> None:
    """A word, a boolean, NaN, and a half in the place of a whole number are refused with the argument's name."""
    cls = built.func if isinstance(built.func, type) else type(built())
    for name, whole in numbers_of(cls).items():
        if not built.args or name not in {"latent_dim"} | UNUSED.get(built.args[0], set()):
            for value in ("a", True, math.nan, *([1.5] if whole else [])):
                with pytest.raises((ValueError, TypeError), match=f"{name} must be .*, got {value!r}"):
                    built(**{name: value})
