"""The primal-dual GAN against the standard method on MNIST, with the nets of the study, a quarter as wide.

    python -m experiments.primal_dual_mnist --out docs/results/primal-dual-mnist.md

The generator as its table prints it, without activations, and with ReLUs and a tanh; latent dimension 4. ``--width 64``
is the table's width (14 times as long: for a GPU). MNIST is downloaded to ``$LIGHTNING_GANS_DATA``.
"""

from __future__ import annotations

from typing import Any

from experiments import figures, measures, page, playing

METHODS: dict[str, dict[str, Any]] = {
    "GAN, saturating": {"technique": "gan", "options": {"loss": "minimax"}},
    "GAN, non-saturating": {"technique": "gan", "options": {"loss": "non_saturating"}},
    "primal-dual, saturating": {"technique": "primal_dual", "options": {}},
    "primal-dual, non-saturating": {"technique": "primal_dual", "options": {"saturating": False}},
}


def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, updates=1500, alpha=0.1, sigma=1.0, width=16)
    arguments = p.parse_args()
    games: dict[str, playing.Game] = {}
    for activations in (False, True):
        for name, method in METHODS.items():
            own = {"alpha": arguments.alpha, "sigma": arguments.sigma} if method["technique"] == "primal_dual" else {}
            play = method | {"options": method["options"] | own}
            made = playing.image_game("MNIST", arguments.updates, batch_size=64, **play)
            made["generator"] = ["PrimalDualGenerator", {"width": arguments.width, "activations": activations}]
            made["discriminator"] = ["PrimalDualDiscriminator", {"width": 2 * arguments.width}]
            games[f"{name}, G {'with ReLUs' if activations else 'as printed'}"] = made | {"latent_dim": 4}
    found = playing.sweep(games, arguments.seeds, arguments)
    fid = playing.score_of("MNIST")
    columns: measures.Columns = {
        "FID, last": lambda r: measures.last(r, fid),
        "best": lambda r: measures.best(r, fid),
        "D(x)": lambda r: measures.late_mean(r, "g/d_real"),
        "log p_g": lambda r: measures.late_mean(r, "g/log_p_g"),
        "gradient, first term": lambda r: measures.late_mean(r, "g/adversarial_gradient"),
        "kernel term": lambda r: measures.late_mean(r, "g/kernel_gradient"),
        "cosine": lambda r: measures.late_mean(r, "g/gradient_cosine"),
        "ms per update": measures.milliseconds,
    }
    protocol = [
        f"width {arguments.width} (G), {2 * arguments.width} (D); the study's nets have 64 and 128",
        f"{arguments.updates} generator updates, one of D each; batch 64, latent dimension 4; Adam(2e-4; 0.5, 0.999); "
        "EMA generator (0.99)",
        f"alpha {arguments.alpha:g}, sigma {arguments.sigma:g} times the median distance of two real images, in pixels",
        "FID/lenet: 2,000 samples against 10,000; the rest: means over the second half of a run",
    ]
    table = measures.table(found, columns, "method")
    page.publish(arguments, "Primal-dual on MNIST", found, protocol, table, figures.samples(found))


if __name__ == "__main__":
    main()
