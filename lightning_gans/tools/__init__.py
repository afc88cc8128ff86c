"""What one does with a trained GAN."""
