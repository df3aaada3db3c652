"""StyleGAN2's operators: compiled where they can be, plain PyTorch everywhere."""
