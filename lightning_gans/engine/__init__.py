"""How any model of ours is trained: it knows no discriminator and no technique."""
