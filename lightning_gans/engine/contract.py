"""What a callback, sampler or tool may ask of a model, whatever its class: capabilities, not types.

Protocols are for type checkers. At run time :func:`require` looks at the class for methods and at the value for what a
model may or may not have, and says in one sentence what is missing.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from lightning_gans.engine.batch import Batch
from lightning_gans.engine.player import Player

Capability = TypeVar("Capability")


class Played(Protocol):
    """A model whose players step in turn, as the engine trains it.

    Attributes:
        players: by name, in the order of their optimizers.
        values: last value of everything that is logged, by name (``d/loss``), detached.
        run: of the fit that is under way; ``run.stepping.player`` is the player whose optimizer steps now.
    """

    players: dict[str, Player]
    values: dict[str, Tensor]
    run: Any

    @property
    def global_step(self) -> int:
        """Updates of the counted player."""

    @property
    def device(self) -> torch.device:
        """Where the networks are."""

    def networks(self, player: str) -> list[nn.Module]:
        """The networks of a player."""

    @property
    def last_batch(self) -> Batch | None:
        """The last batch that was trained on."""


class Samples(Protocol):
    """A model that makes samples."""

    @property
    def global_step(self) -> int:
        """Updates of the counted player."""

    @property
    def device(self) -> torch.device:
        """Where the networks are."""

    def sample(
        self,
        n: int,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> Tensor:
        """``n`` samples (n, ...)."""

    @property
    def num_classes(self) -> int | None:
        """Classes that samples can be asked for."""

    @property
    def network_calls(self) -> int:
        """Calls of networks that a sample takes."""

    @property
    def vocabulary_size(self) -> int | None:
        """Symbols of samples that are text; None where they are not."""

    @property
    def trained_network(self) -> nn.Module:
        """The network that makes samples, as it is trained."""

    @property
    def network(self) -> nn.Module:
        """The one that samples are made by: averaged if there is an average."""

    @property
    def ema(self) -> nn.Module | None:
        """The averaged one."""

    def start_ema(self) -> nn.Module:
        """Begin it at the present weights, or return it."""

    @property
    def images_seen(self) -> int:
        """Real samples trained on."""

    @property
    def last_batch(self) -> Batch | None:
        """The last batch that was trained on."""


class Latents(Samples, Protocol):
    """A model whose samples are a function of noise that can be chosen."""

    latent_dim: int

    def latents(
        self,
        n: int,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
        seed: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Noise and labels of ``n`` samples."""

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples of noise."""


class Pictures(Samples, Protocol):
    """A model whose samples are images or points: no text."""


class Text(Samples, Protocol):
    """A model whose samples are tokens (n, T) int64."""


class Rewrites(Samples, Protocol):
    """A model that rewrites texts in other styles."""

    def transfer(self, tokens: Tensor, styles: Tensor) -> Tensor:
        """Texts (N, T) int64 in styles (N,)."""


class Critic(Samples, Protocol):
    """A model with a discriminator."""

    discriminator: nn.Module
    conditional: bool

    @property
    def last_fake(self) -> Tensor | None:
        """Samples of the last step of the discriminator, detached."""

    def score(self, x: Tensor, batch: Batch) -> Tensor:
        """Scores (N,) of samples, high for real."""


class Ratio(Critic, Protocol):
    """A model one of whose networks tends to log p_data / p_generated."""

    @property
    def log_ratio(self) -> nn.Module | None:
        """That network."""


class Likelihood(Samples, Protocol):
    """A model that bounds the density of data."""

    def log_density_bound(self, x: Tensor) -> Tensor:
        """A lower bound (N,) of log p(x), in nats."""


# capability -> what it is in words, methods of the class, attributes whose value must not be None, networks
_NEEDED: dict[type, tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    Played: ("is trained by players", ("networks",), ("players",), ()),
    Samples: ("makes samples", ("sample", "start_ema"), (), ()),
    Pictures: ("makes images or points", ("sample", "start_ema"), (), ()),
    Text: ("makes text", ("sample", "start_ema"), ("vocabulary_size",), ()),
    Rewrites: ("rewrites text in another style", ("sample", "start_ema", "transfer"), (), ()),
    Latents: ("makes samples of noise that can be chosen", ("sample", "latents", "decode"), (), ()),
    Critic: ("has a discriminator", ("score",), (), ("discriminator",)),
    Ratio: ("estimates the ratio of densities", ("score",), ("log_ratio",), ("discriminator",)),
    Likelihood: ("bounds the density of data", (), ("log_density_bound",), ()),  # some GANs' generators do
}


_TEXT = "text"


def require(model: Any, capability: type[Capability], who: object) -> Capability:
    """The model, if it has a capability.

    Args:
        model: anything.
        capability: one of the protocols above.
        who: needs it, for the message: an object, whose class is named, or a string.

    Raises:
        TypeError: "X needs a model that ..., got Y, which has no z."
    """
    if missing := _missing(model, capability):
        name = _name(who)
        words = _NEEDED[capability][0]
        if missing == [_TEXT]:
            raise TypeError(f"{name} needs a model that {words}, got {type(model).__name__}, whose samples are text.")
        raise TypeError(f"{name} needs a model that {words}, got {type(model).__name__}, which has no {missing[0]}.")
    return cast(Capability, model)


def require_normal_noise(model: Any, who: object) -> None:
    """Nothing, for what tells no law of its noise; a ValueError for a model whose `latents` draw another.

    Args:
        model: anything.
        who: draws standard normal noise for it, for the message: an object, whose class is named, or a string.
    """
    if not getattr(model, "normal_noise", True):
        name, got = _name(who), type(model).__name__
        raise ValueError(f"{name} needs a module whose noise is standard normal, got {got}, which draws another.")


def require_one_call(model: Any, who: object) -> None:
    """Nothing, for what makes samples of noise by one call of its network; a ValueError for a model that takes several.

    Args:
        model: anything.
        who: takes the network for the map from noise to samples; as of :func:`require_normal_noise`.
    """
    if (calls := getattr(model, "network_calls", 1)) != 1:
        name, got = _name(who), type(model).__name__
        raise ValueError(f"{name} needs a module whose samples take one network call, got {got}, whose take {calls}.")


def has(model: Any, capability: type[Capability]) -> bool:
    """Whether the model has a capability, for what is left out of a picture otherwise."""
    return not _missing(model, capability)


def _missing(model: Any, capability: type) -> list[str]:
    _, methods, values, networks = _NEEDED[capability]
    missing = [name for name in methods if not callable(getattr(type(model), name, None))]
    if capability is Pictures and not missing and getattr(model, "vocabulary_size", None) is not None:
        return [_TEXT]
    missing += [name for name in networks if not isinstance(getattr(model, name, None), nn.Module)]
    return missing or [name for name in values if getattr(model, name, None) is None]


def _name(who: object) -> str:
    return who if isinstance(who, str) else type(who).__name__
