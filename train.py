"""``python train.py fit`` trains a GAN: what ``lightning-gans`` is after an installation, in a clone."""

from lightning_gans.cli import main

if __name__ == "__main__":
    main()
