"""Drawing: pictures of numbers that were given. It knows no training, no network and no logger."""
