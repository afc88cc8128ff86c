"""Maximum likelihood of text, token by token: the base of all text GANs (as in SeqGAN, arXiv:1609.05473)."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from lightning_gans.engine.batch import Batch, Terms
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.engine.player import OptimizerFactory, Player, SchedulerFactory
from lightning_gans.functional.text import check_language_model, log_density, to_tokens
from lightning_gans.runs.load import load_generator


class MLE(GenerativeModule):
    r"""A language model trained by maximum likelihood, with the true tokens before each (teacher forcing).

    .. math:: L = -\frac1T \sum_{t=1}^T \log p(y_t | y_{<t})

    in nats per token (``mle/nll``), padding included. Data are one-hot (N, T, V), or tokens (N, T) int64 (data modules
    of text with ``one_hot=False``). Samples are tokens (n, T) int64, by p^(1/temperature); a text is a function of
    standard normal noise, one number a token. The checkpoint's ``generator`` is where text GANs begin
    (``generator_checkpoint``). Stop at the best NLL of the held-out part (``TextMetrics``, ``metrics/nll_gen``): that
    of the training part goes on falling. A network may have further terms to minimise (``losses``, as of
    `networks.LeakGANGenerator`).

    When: Text: before any text GAN, to begin with, and beside it, at several temperatures, to compare.

    Defaults: Adam's rate and the clipping are those of SeqGAN's code.

    Departures: none that is known.

    Args:
        generator: the language model, as `networks.LanguageModel`, or `networks.RelationalGenerator`, whose noise is
            (N, T V): ``length``, ``vocabulary_size``, ``nll(tokens)``
            (N, T), and ``generate(z, temperature)``.
        lr_mle: of Adam.
        optimizer_mle: makes another optimizer.
        scheduler_mle: makes its learning rate scheduler.
        clip_grad_mle: largest norm of the gradient.
        accumulate_mle: batches whose mean gradient makes one update.
        cuda_graphs: see `GenerativeModule`.
        generator_checkpoint: whose generator's weights it begins with, as of `GAN`.

    Logged:
        mle/nll: nats per token of the training texts, padding included.

    Raises:
        TypeError: for a network that is no language model.
        ValueError: for settings out of range, and for data of another length or alphabet.

    >>> from lightning_gans.networks import LanguageModel
    >>> MLE(LanguageModel((20, 50))).sample(3, temperature=0.5).shape
    torch.Size([3, 20])
    """

    counted, reads_tokens = "mle", True

    def __init__(
        self,
        generator: nn.Module,
        *,
        lr_mle: float = 1e-2,
        optimizer_mle: OptimizerFactory | None = None,
        scheduler_mle: SchedulerFactory | None = None,
        clip_grad_mle: float | None = 5.0,
        accumulate_mle: int = 1,
        cuda_graphs: bool = False,
        generator_checkpoint: str | None = None,
    ) -> None:
        super().__init__(cuda_graphs=cuda_graphs)
        check_language_model(generator)
        self.generator, self.length = generator, cast(int, generator.length)
        self.generator_checkpoint = generator_checkpoint
        self.latent_dim = cast(int, getattr(generator, "latent_dim", self.length))
        nets = ("generator",)
        self.play(Player("mle", nets, lr_mle, optimizer_mle, scheduler_mle, clip_grad_mle, accumulate_mle))

    def terms(self, player: str, batch: Batch) -> Terms:
        """The mean over samples, by their weights, and tokens."""
        own = getattr(self.generator, "losses", None)
        terms = {"nll": self.nll(batch.real)} if own is None else own(to_tokens(batch.real))
        means = {name: value.mean(1) for name, value in terms.items()}
        return {name: (x if batch.weights is None else batch.weights * x).mean() for name, x in means.items()}

    def on_fit_start(self) -> None:
        """Begin with the weights of ``generator_checkpoint``, unless the fit goes on from a checkpoint of its own."""
        path, self.generator_checkpoint = self.generator_checkpoint, None
        if path is not None and self.trainer.ckpt_path is None:
            load_generator(self.generator, path, self.vocabulary)

    def nll(self, x: Tensor) -> Tensor:
        """-log p of each token (N, T), in nats, of tokens or one-hot vectors, by the network that is trained."""
        return cast(Any, self.generator).nll(to_tokens(x))

    def log_density_bound(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        """log p(x) (N,), in nats, which is exact here, of what is sampled at a temperature."""
        return log_density(self.network, x, temperature)

    def check_first_batch(self, batch: Batch) -> None:
        """Raise one sentence for data that are not of the network's length and alphabet."""
        super().check_first_batch(batch)
        wanted = (self.length, self.vocabulary_size) if batch.real.is_floating_point() else (self.length,)
        if batch.real.shape[1:] != wanted:
            raise ValueError(
                f"real samples must be (N, {self.length}, {self.vocabulary_size}), the network's length and symbols, "
                f"or tokens (N, {self.length}), got {tuple(batch.real.shape)}."
            )
