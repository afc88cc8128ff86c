"""What tells the part of w that belongs to an attribute's value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn


class AttributeEncoders(nn.Module):
    """For each attribute a perceptron from its features to its part of w: three hidden layers, LeakyReLU(0.2).

    Args:
        features: their number, by attribute.
        sizes: length of each attribute's part of w.
        width: of hidden layers.

    Attributes:
        statistics: by attribute (4, F): mean, standard deviation, least and largest of each feature, by which an input
            is scaled, and beyond which it is refused.

    >>> nets = AttributeEncoders({"size": 1}, {"size": 5})
    >>> tuple(nets("size", torch.zeros(2, 1)).shape)
    (2, 5)
    """

    def __init__(self, features: Mapping[str, int], sizes: Mapping[str, int], width: int = 128) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "features": dict(features),
            "sizes": {name: sizes[name] for name in features},
            "width": width,
        }
        self.nets, self.statistics = nn.ModuleDict(), nn.ParameterDict()
        for name, n in features.items():
            widths, layers = [n, width, width, width], list[nn.Module]()
            for i in range(3):
                layers += [nn.Linear(widths[i], widths[i + 1]), nn.LeakyReLU(0.2)]
            self.nets[name] = nn.Sequential(*layers, nn.Linear(width, sizes[name]))
            whole = torch.tensor([0.0, 1.0, -torch.inf, torch.inf])[:, None].expand(-1, n).clone()
            self.statistics[name] = nn.Parameter(whole, requires_grad=False)

    @torch.no_grad()
    def fit_to(self, features: Mapping[str, Tensor]) -> None:
        """Take the statistics of features (M, F) by attribute."""
        for name, x in features.items():
            std, mean = torch.std_mean(x, 0)
            self.statistics[name].copy_(torch.stack([mean, std.clamp_min(1e-6), x.amin(0), x.amax(0)]))

    def forward(self, name: str, features: Tensor) -> Tensor:
        """Features (N, F) of an attribute to its part of w."""
        mean, std = self.statistics[name][:2]
        return cast(Tensor, self.nets[name]((features - mean) / std))

    def check(self, name: str, features: Tensor) -> None:
        """ValueError for another number of features, and for values beyond those that it was learned from."""
        mean, std, least, most = self.statistics[name]
        if features.shape[1:] != mean.shape:
            raise ValueError(f"attributes[{name!r}] must be {len(mean)} number(s), got {features.shape[1]}.")
        if not bool(((features >= least - std) & (features <= most + std)).all()):
            low, high = ([round(v, 3) for v in x.tolist()] for x in (least, most))
            raise ValueError(f"attributes[{name!r}] must be in {low} to {high}, got {features[0].tolist()}.")

    def described(self) -> dict[str, Any]:
        """What :meth:`of` makes it of again."""
        return {"arguments": self.arguments, "state": self.state_dict()}

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> AttributeEncoders:
        """The encoders that were described."""
        made = cls(**described["arguments"])
        made.load_state_dict(described["state"])
        return made
