"""``python train.py fit`` trains a GAN; without further arguments WGAN-GP on scikit-learn's digits."""

from pathlib import Path

from lightning_gans.cli import main

if __name__ == "__main__":
    main(default_config=Path(__file__).parent / "configs" / "digits" / "wgan_gp.yaml")
