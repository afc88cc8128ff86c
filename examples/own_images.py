"""Your own folder of images, to a GAN with scores and a model card: two minutes on one CPU core.

    python examples/own_images.py --folder photos    # yours, of any sizes; if all lie in subfolders, these are classes
    python examples/own_images.py                    # none at hand: 1,000 coloured shapes are drawn into ./shapes first

Each `lightning_gans(...)` below is a command that you can type as well: `lightning-gans fit --config ...`. The images
become 16 pixels wide, which is what a CPU learns in minutes; on a GPU begin with `--config images/wgan_gp`, 64 pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from lightning_gans import load
from lightning_gans.cli import main as lightning_gans
from lightning_gans.datamodules import Images, Shapes
from lightning_gans.tools import export
from lightning_gans.tools.score import score_samples
from lightning_gans.visualization.images import grid_image, to_uint8


def draw_shapes(folder: Path, number: int) -> Path:
    """Squares, triangles and ellipses as PNG files, each kind in a folder of its own."""
    images, kinds = Shapes(side=16, items=number).reference()
    for i, (image, kind) in enumerate(zip(images, kinds)):
        path = folder / ("square", "triangle", "ellipse")[int(kind)] / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return folder


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--folder", type=Path, help="of images, or a .zip file")
parser.add_argument("--shapes", type=int, default=1000, help="how many to draw where there is no folder")
parser.add_argument("--updates", type=int, default=2000, help="of the generator")
parser.add_argument("--out", default="runs", help="folder for the run")
arguments = parser.parse_args()
if arguments.folder and not arguments.folder.exists():
    parser.error(f"--folder must be there, got {arguments.folder}")
folder = arguments.folder or draw_shapes(Path("shapes"), arguments.shapes)

# 1. Look at what is there. A tenth of the images, always the same ones, is held out; files that cannot be read are
#    left out, and told.
data = Images(str(folder), size=16)
data.setup("fit")
classes = data.num_classes

# 2. Train. Where there are classes, both networks are told them, and the score is FID by the features of a small
#    classifier that is trained on your classes first; without them it is FID by InceptionV3, whose weights are
#    downloaded once.
extractor = "inception" if classes is None else "lenet"
networks = () if classes is None else ("generator", "discriminator")
conditional = [f"--model.{network}.num_classes={classes}" for network in networks]
every = max(1, arguments.updates // 4)
run = lightning_gans([
    "fit", "--config=images/r3_gan", f"--data.path={folder}", *conditional,
    f"--data.batch_size={min(64, data.num_items)}",
    f"--out={arguments.out}", "--name=own-images",
    f"--trainer.max_steps={arguments.updates}", f"--trainer.log_every_n_steps={max(1, arguments.updates // 40)}",
    "--trainer.callbacks+=GenerativeMetrics", f"--trainer.callbacks.extractor={extractor}",
    "--trainer.callbacks.metrics=[fid]", f"--trainer.callbacks.num_fake={data.num_items}",
    f"--trainer.callbacks.every_n_steps={every}", f"--grid.every_n_steps={every}",
    f"--checkpoint.monitor=metrics/fid/{extractor}", f"--checkpoint.every_n_train_steps={every}",
])  # fmt: skip

# 3. Load what scored best, which needs nothing but the run's folder, and draw from it.
model = load(run, which="best")
samples = model.sample(len(data.reference("test")[0]), seed=1)
grid_image(samples[:64], columns=8).save(run / "from_the_best.png")

# 4. A score says little without a landmark. KID is 0 on average for images that were held out, however few they are,
#    and small for good samples; its deviation says how far chance takes it.
for what, images in (("held-out images", data.reference("test")[0]), ("samples", to_uint8(samples, (-1, 1)))):
    found = score_samples(images, data, extractor, metrics=["kid"])["scores"]
    print(f"{what:<16} KID {found[f'kid/{extractor}']:.3f} ± {found[f'kid_std/{extractor}']:.3f}")

# 5. Take the generator elsewhere: one file that runs in torch without this library (.onnx for any ONNX runtime).
print("Generator       ", export(model, run / "generator.pt2"))

# 6. The model card: technique, data, scores with their protocol, configuration. `push_to_hub(run, "user/name")`
#    publishes it with the weights.
card = (run / "checkpoints" / "last.md").read_text(encoding="utf-8")
print(f"\n{card.partition('## Use')[0]}")
print(f"Look at {run}/samples/over_training.png (does it improve?), {run}/from_the_best.png (one kind only, or all?)\n"
      f"and {run}/checkpoints/last.md, the card.")  # fmt: skip
