"""Speed and memory, side by side with a plain PyTorch loop."""
