"""The two things that are bridged: either Lightning, and torchvision beside a CPU-only torch."""
