"""``Sampling``: how samples come out of a model, by its averaged weights if there are any."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.compat.lightning import pl
from lightning_gans.engine.averages import key_of, load_within, save_within
from lightning_gans.engine.first_batch import sample_labels
from lightning_gans.functional.columns import columns
from lightning_gans.functional.conditional import conditional_call, needs_labels, takes_labels
from lightning_gans.functional.modes import alike, averaging, copied, evaluating, rounded
from lightning_gans.functional.ranks import rank_and_world
from lightning_gans.functional.text import Vocabulary

_LOG = [*signature(pl.LightningModule.log).parameters][2:]  # what `log` takes behind a name, in order
_ONCE = ("on_train_start", "on_train_epoch_start", "on_train_epoch_end")  # of training: what they log is an epoch's


class Sampling(pl.LightningModule):
    """The part of a module that makes samples of noise.

    Attributes:
        latent_dim: length of z.
        made_by: name of the attribute that holds the network which makes samples; averaged by ``callbacks.EMA``.
        averaged_with: names of networks that only go with it, and are averaged when it is.
        normal_noise: z of samples is standard normal; False where `latents` draws it by another law.
        label_counts: (num_classes,) how often each class is in the training data, as far as they tell (a data module
            with ``reference``, a ``MemoryLoader``); None otherwise. Part of the checkpoint.
        vocabulary: of a model of text, the symbols of its tokens, if the training data tell; part of the checkpoint.
        ema_by_hand: the average was begun by a call of ``start_ema``, and goes on by hand; not that of a callback.
        hands_back: this is the copy of a process that was started for one fit, which hands back the weights alone.
    """

    latent_dim: int
    made_by = "generator"
    averaged_with: tuple[str, ...] = ()
    normal_noise = True
    label_counts: Tensor | None = None
    vocabulary: Vocabulary | None = None
    ema_by_hand = hands_back = False
    _decided: tuple[str, ...] = ()  # hyper-parameters that its class decides, and is not given

    def __init__(self) -> None:
        super().__init__()
        self.sample_options: dict[str, Any] = {}  # of `sample`, in predictions
        self._slot: dict[str, nn.Module] = {}  # the averaged network: a dict, so that it is no submodule
        self._rounded: dict[str, nn.Module] = {}  # copies of it in a type of fewer bits, if the module has such a one
        self.register_state_dict_post_hook(save_within)
        self.register_load_state_dict_pre_hook(load_within)

    @property
    def trained_network(self) -> nn.Module:
        """The network that makes samples, with the weights that are trained."""
        return cast(nn.Module, getattr(self, self.made_by))

    @property
    def network(self) -> nn.Module:
        """The network that samples are made by, as this module is (device, type): the averaged one if there is one."""
        return self.averaged("ema")

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one sample."""
        return (self.latent_dim,)

    @property
    def noise_dtype(self) -> torch.dtype:
        """Type of the noise: the network's; of text 32 bits or more, as a number of 16 can say few different tokens."""
        dtype = next(self.trained_network.parameters(), torch.empty(0)).dtype
        return dtype if self.vocabulary_size is None else torch.promote_types(dtype, torch.float32)

    @property
    def num_classes(self) -> int | None:
        """Number of classes that samples can be asked for; None if the network takes no labels."""
        network = self.trained_network
        return getattr(network, "num_classes", None) if takes_labels(network) else None

    @property
    def network_calls(self) -> int:
        """Calls of networks that a sample takes."""
        return 1

    @property
    def vocabulary_size(self) -> int | None:
        """Number of symbols where samples are text, tokens (n, T) int64; None where they are not."""
        return getattr(self.trained_network, "vocabulary_size", None)

    @property
    def ema(self) -> nn.Module | None:
        """The network with averaged weights, if :meth:`start_ema` was called; no submodule of this module.

        It is kept in float32 or better, since an average in fewer bits stands still; :attr:`network` is as the module.
        """
        return self._slot.get("ema")

    @property
    def averages(self) -> dict[str, tuple[nn.Module, nn.Module]]:
        """The averaged networks, the one that makes samples as "ema", each beside the trained one."""
        return {name: (mean, self._trained(name)) for name, mean in self._slot.items()}

    def _trained(self, name: str) -> nn.Module:
        return self.trained_network if name == "ema" else cast(nn.Module, getattr(self, name))

    def averaged(self, name: str) -> nn.Module:
        """The network by which :attr:`network` goes, of those `averaged_with` it."""
        trained = self._trained(name)
        if name not in self._slot:
            return trained
        if alike(mean := self._slot[name], trained):
            return mean
        averaging(mean, trained)
        if alike(mean, trained):
            return mean
        self._rounded[name] = rounded(mean, trained, self._rounded.get(name))
        return self._rounded[name]

    def start_ema(self) -> nn.Module:
        """Begin an averaged network at the present weights, or return the one that is there (see callbacks.EMA).

        Whoever calls it says that the average goes on: a fit without `EMA` forgets others.
        """
        self.ema_by_hand = True
        return self._begin_ema()

    def _begin_ema(self) -> nn.Module:
        if "ema" not in self._slot:
            for name in ("ema", *self.averaged_with):
                self._slot[name] = copied(self._trained(name)).eval().requires_grad_(False)
        for mean, trained in self.averages.values():
            averaging(mean, trained)
        return self._slot["ema"]

    def drop_ema(self) -> None:
        """Forget the averaged network, as when weights of another model are put in its place."""
        self.ema_by_hand = False
        self._forget_ema()

    def _forget_ema(self) -> None:
        self._slot.clear()
        self._rounded.clear()

    def __setattr__(self, name: str, value: Any) -> None:
        """The hook that Lightning notes itself to be in, all day long: a module looks for parameters in each value."""
        if name == "_current_fx_name":
            vars(self)[name] = value
        else:
            super().__setattr__(name, value)

    def log(self, name: str, *args: Any, **options: Any) -> None:
        """As Lightning's; in training each value weighs the same, as Lightning does not see the batches of a step."""
        run = vars(self).get("run")
        training = run is not None and run.trainer is not None and run.trainer.training
        if training and len(args) <= _LOG.index("batch_size") and not options.get("batch_size"):
            options["batch_size"] = 1
        given = dict(zip(_LOG, args, strict=False)) | options
        if run is not None and given.get("logger") is not False and name != "step":
            once = not training or vars(self).get("_current_fx_name") in _ONCE
            of_epoch, of_step = given.get("on_epoch"), given.get("on_step")
            if once if of_epoch is None else of_epoch:
                run.logs.add("epoch" if training else "validation")
            if training and (not once if of_step is None else of_step):
                run.logs.add("step")
        super().log(name, *args, **options)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's output for noise ``z`` (N, *noise_shape), with labels if it takes them."""
        return self.generated(z, labels)

    def generated(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """What a step is taken on, as :meth:`forward`, which people override."""
        network = getattr(self, self.made_by)
        made: Tensor = network(z) if labels is None else conditional_call(network, z, labels)
        return made

    def latents(
        self,
        n: int,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        seed: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """What :meth:`sample` makes its samples of: z (n, *noise_shape), and labels (n,) or None."""
        checks.at_least_one(n=n)
        if seed is not None:
            if generator is not None:
                raise ValueError(f"seed must be None where a generator is given, got {seed!r}.")
            checks.at_least(0, seed=seed)
            generator = torch.Generator().manual_seed(seed)
        parameter = next(self.network.parameters(), torch.empty(0, device=self.device))  # a formula has none
        z = torch.randn(n, *self.noise_shape, generator=generator, dtype=self.noise_dtype).to(parameter.device)
        if labels is None and self.num_classes is not None:
            labels = self.draw_labels(n, generator)
        if labels is None and needs_labels(self.network):
            raise ValueError(f"{self.made_by} must tell num_classes, an attribute, as it needs labels, got none.")
        sample_labels(labels, n, self.num_classes, known=not takes_labels(self.network))
        return z, None if labels is None else labels.to(parameter.device)

    def draw_labels(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Classes (n,) as frequent as in the training data (``label_counts``), uniform where that is not known."""
        if self.label_counts is None or len(self.label_counts) != self.num_classes:
            return torch.randint(self.num_classes or 1, (n,), generator=generator)
        return torch.multinomial(self.label_counts.double(), n, replacement=True, generator=generator)

    def count_labels(self, labels: Tensor | None) -> None:
        """Take the frequencies of the training data's ``labels``, unless they are not those of this network."""
        self.label_counts, known = None, self.num_classes
        if (
            known is not None
            and labels is not None
            and len(labels)
            and 0 <= int(labels.min()) <= int(labels.max()) < known
        ):
            self.label_counts = labels.cpu().bincount(minlength=known)

    def sampling_state(self) -> dict[str, Any]:
        """What a checkpoint holds of it beside the weights."""
        averaged: dict[str, Any] = {key_of(name): mean.state_dict() for name, mean in self._slot.items()}
        averaged |= {} if self.vocabulary is None else {"vocabulary": self.vocabulary.as_dict()}
        return averaged if self.label_counts is None else averaged | {"label_counts": self.label_counts}

    def load_sampling_state(self, checkpoint: Mapping[str, Any]) -> None:
        """Take it back."""
        self._forget_ema()
        self.label_counts = checkpoint.get("label_counts")
        self.vocabulary = Vocabulary.of(checkpoint["vocabulary"]) if "vocabulary" in checkpoint else None
        if "ema" in checkpoint:
            self._begin_ema()
            for name, mean in self._slot.items():
                mean.load_state_dict(checkpoint.get(key_of(name)) or self._trained(name).state_dict())

    @torch.no_grad()
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples (N, ...) of noise ``z`` (N, *noise_shape) and labels (N,), in evaluation mode, by :attr:`network`.

        A network of text has a method ``generate`` from noise to tokens, beside what it is trained by. Its noise has
        32 bits or more, whatever the network's type (`noise_dtype`).
        """
        try:
            return self._by_network(z, labels)
        except RuntimeError as error:
            if z.shape[1:] == self.noise_shape:
                raise
            raise ValueError(f"z must have shape {(len(z), *self.noise_shape)}, got {tuple(z.shape)}.") from error

    def _by_network(self, z: Tensor, labels: Tensor | None, **options: Any) -> Tensor:
        with evaluating(network := self.network):
            make = network if self.vocabulary_size is None else getattr(network, "generate", network)
            return conditional_call(partial(make, **options) if options else make, z, labels)

    def sample(
        self,
        n: int,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        seed: int | None = None,
        temperature: float | None = None,
    ) -> Tensor:
        """``n`` samples (n, ...) in evaluation mode, by the averaged network if there is one.

        Args:
            n: number of samples, >= 1.
            labels: (n,) classes; drawn by :meth:`draw_labels` for a conditional network if not given.
            generator: source of the noise (CPU); the global one if not given.
            seed: of a source of its own, in place of ``generator``: the same number, the same samples.
            temperature: of text, > 0: below 1 the likely becomes likelier.

        Raises:
            ValueError: if ``labels`` has another length than n, or the network takes none; for a seed and a source; for
                a temperature where there is none.
        """
        noise = self.latents(n, labels, generator, seed)
        if temperature is None:
            return self.decode(*noise)
        if self.vocabulary_size is None:
            raise ValueError(
                f"temperature must be None for {type(self).__name__}, which makes no text, got {temperature}."
            )
        with torch.no_grad():
            return self._by_network(*noise, temperature=temperature)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """As many samples as ``batch`` says or holds; batch ``i`` of a loader always gets the same noise.

        On W ranks batch i of rank r is batch i W + r of one process; of a list of numbers each rank has all.
        """
        n = batch if isinstance(batch, int) else len(columns(batch, getattr(self, "columns", None))[0])
        rank, world = rank_and_world()
        if world > 1 and not _numbers(self.trainer.predict_dataloaders):
            batch_idx = batch_idx * world + rank
        noise = torch.Generator().manual_seed(batch_idx + 1_000_003 * dataloader_idx)
        return self.sample(n, generator=noise, **self.sample_options)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Nothing to do per batch: scores are computed by callbacks (``GenerativeMetrics``)."""


def _numbers(loaders: Any) -> bool:
    """Whether a list of numbers of samples is in the place of a loader: no rank has a part of its own of that."""
    return isinstance(loaders, (list, tuple)) and isinstance(loaders[0], int)
