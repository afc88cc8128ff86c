"""Is D the bottleneck of a transformer GAN, and what do augmentation, mask and super-resolution do?

    python -m experiments.transformers --out docs/results/transformers-grid.md

TransGAN's source says so by a table of pairs (IS / FID on CIFAR-10: convolutional G and D 8.55 / 12.42, transformer G
8.59 / 13.23, transformer D 6.17 / 49.83, both 6.95 / 41.41). Here DCGAN's networks and TransGAN's, narrow, of about as
many parameters, in the same Wasserstein game, on digits or MNIST (downloaded to ``$LIGHTNING_GANS_DATA``); each pair
after as many updates, and after as many seconds as the fastest pair takes for all of its updates. Then both
transformers with DiffAugment, with super-resolution beside the game, and with a mask on G's last block until half of
the updates.
"""

from __future__ import annotations

from typing import Any

from experiments import figures, measures, page, playing

OPTIONS: dict[str, Any] = {"d_steps": 2, "g_batch_factor": 1, "lr_g": 1e-3, "lr_d": 1e-3, "betas": [0.0, 0.9]}


def networks(data: str, width: int) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """G and D by kind, both convolutions and both transformers with about as many parameters."""
    depths = [1, 1] if data == "Digits" else [1, 1, 1]
    small = {"Digits": {"widths": [2 * width], "depths": [1, 1]}}
    large = {"widths": [2 * width], "depths": [2, 1], "patch": 4}
    # A number for each displacement of 784 tokens would keep their attention from being fused: four times as slow.
    own = {} if data == "Digits" else {"relative": False, "heads": 1}
    g = {
        "conv": ["DCGANGenerator", {"width": 2 * width}],
        "transformer": ["TransGANGenerator", {"width": 4 * width, "depths": depths, **own}],
    }
    d = {
        "conv": ["DCGANDiscriminator", {"width": 2 * width, "norm": "none"}],
        "transformer": ["TransGANDiscriminator", small.get(data, large)],
    }
    return g, d


def games(data: str, width: int, updates: int) -> dict[str, playing.Game]:
    """The four pairs, then both transformers with one thing more."""
    g, d = networks(data, width)

    def game(of_g: list[Any], of_d: list[Any], own: dict[str, Any], wrap: list[Any]) -> playing.Game:
        return playing.image_game(
            data, updates, technique="trans_gan", options=OPTIONS | own, generator=of_g, discriminator=of_d, wrap=wrap
        )

    def more(**extra: Any) -> list[Any]:
        return [g["transformer"][0], g["transformer"][1] | extra]

    augment = [["DiffAugment", {"policy": "translation,cutout", "translation": 0.2, "cutout_p": 0.3}]]
    found = {f"G {a}, D {b}": game(g[a], d[b], {}, []) for a in g for b in d}
    both = "transformers"
    found[f"{both}, DiffAugment"] = game(g["transformer"], d["transformer"], {}, augment)
    found["G conv, D conv, DiffAugment"] = game(g["conv"], d["conv"], {}, augment)
    watch = {"watch": [["AttentionMaps", {"every_n_steps": max(1, updates // 4)}]]}
    upscale = {"super_resolution": 50.0}
    found[f"{both}, super-resolution"] = game(more(stem=True), d["transformer"], upscale, [])
    mask = {"locality": [[2, max(1, updates // 2)]]}
    found[f"{both}, mask"] = game(more(locality="window"), d["transformer"], mask, []) | watch
    found["G transformer, D transformer"] |= watch
    return found


def near(result: playing.Result, when: int) -> float:
    """Share of the weights of G's last block for tokens at most 2 away, at the start (0), a quarter (1), ... (4)."""
    kept = [shares for _, shares in sorted(result["kept"].get("AttentionMaps", {}).items(), key=lambda p: int(p[0]))]
    if len(kept) <= when or result["failed"]:
        return float("nan")
    of_g = [share for name, share in kept[when].items() if name.startswith("g/")]
    return float(sum(of_g[-1][:3]))


def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, ("Digits", "MNIST"), data=["Digits"], updates=1200)
    p.add_argument("--width", type=int, default=32)
    arguments = p.parse_args()
    tables: list[str] = []
    everything: dict[str, dict[str, list[playing.Result]]] = {}
    for data in arguments.data:
        found = playing.sweep(games(data, arguments.width, arguments.updates), arguments.seeds, arguments)
        name = playing.score_of(data)
        ends = [r["rows"][-1]["seconds"] for results in found.values() for r in results if not r["failed"]]
        seconds = min(ends, default=float("nan"))
        columns: measures.Columns = {
            "FID, last": lambda r, name=name: measures.last(r, name),
            "FID, best": lambda r, name=name: measures.best(r, name),
            f"FID after {seconds:.0f} s": lambda r, name=name, t=seconds: measures.at_time(r, name, t),
            "ms per update": measures.milliseconds,
        }
        looked: measures.Columns = {
            when: lambda r, at=at: near(r, at) for at, when in enumerate(("start", "1/4", "1/2", "3/4", "end"))
        }
        watched = {name: runs for name, runs in found.items() if any("AttentionMaps" in r["kept"] for r in runs)}
        tables += ["", f"## {data}", "", *measures.table(found, columns, "networks")]
        tables += ["", "Share of the weights of G's last block for tokens at most 2 away, over training:", ""]
        tables += measures.table(watched, looked, "networks")
        everything[data] = found
    curves = {data: {name: runs for name, runs in found.items() if ", D" in name} for data, found in everything.items()}
    figure = figures.curves(curves, playing.score_of(arguments.data[0]), "FID", log=True)
    protocol = [
        "Wasserstein game with penalty 10 and drift .001, 2 critic updates per generator update, Adam(1e-3; 0, 0.9), "
        "clipped at 5, EMA generator (0.99), batch 32",
        f"networks of width {arguments.width} and multiples, unconditional; {arguments.updates} generator updates",
        "FID by a small classifier, 2,000 samples",
        "time: of the processor, one thread, up to the end of the fastest pair",
    ]
    flat = {f"{data}: {name}": runs for data, found in everything.items() for name, runs in found.items()}
    page.publish(arguments, "Transformers in G and D", flat, protocol, tables, figure)


if __name__ == "__main__":
    main()
