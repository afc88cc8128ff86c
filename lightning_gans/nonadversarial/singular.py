"""The largest singular values of a network's weights, followed from step to step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

_AT_FIRST = 40


class SingularValues(nn.Module):
    """Sum of the largest singular values of all weights of a network, differentiable by them.

    By power iteration, four steps at a call from where the last one ended and 40 at first; a convolution's kernel as
    a matrix (outputs, rest). The vectors are buffers, so that they are part of a checkpoint.

    Args:
        network: whose weights of two and more dimensions count, as they are used: those that a parametrization makes
            (`wrappers.weight_norm`, say) in place of what it makes them of.

    >>> layer = nn.Linear(2, 2, bias=False)
    >>> layer.weight.data = torch.diag(torch.tensor([3.0, 1.0]))
    >>> round(float(SingularValues(layer)(layer)), 4)
    3.0
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        own = torch.Generator().manual_seed(0)
        for i, weight in enumerate(self.weights(network)):
            start = torch.randn(weight.shape[0], generator=own, dtype=weight.dtype).to(weight.device)
            self.register_buffer(f"u{i}", normalize(start, dim=0))
        self(network, _AT_FIRST)

    @staticmethod
    def weights(network: nn.Module) -> list[Tensor]:
        """Those that count, as matrices."""
        found: dict[int, Tensor] = {}
        for path, module in network.named_modules():
            if "parametrizations" not in path.split("."):
                own = dict(module.named_parameters(recurse=False))
                for name in [*own, *getattr(module, "parametrizations", ())]:
                    weight = getattr(module, name)
                    found |= {id(weight): weight} if weight.ndim > 1 else {}
        return [weight.flatten(1) for weight in found.values()]

    def forward(self, network: nn.Module, steps: int = 4) -> Tensor:
        """The sum, a scalar."""
        found = []
        for weight, u in zip(self.weights(network), self._buffers.values()):
            assert u is not None
            with torch.no_grad():
                matrix, left = weight.detach(), u
                for _ in range(steps):
                    right = normalize(matrix.t() @ left, dim=0)
                    left = normalize(matrix @ right, dim=0)
                u.copy_(torch.where(left.any(), left, u))  # weights that begin at 0 do not stay out
            found.append(left @ weight @ right)
        return torch.stack(found).sum() if found else torch.zeros(())
