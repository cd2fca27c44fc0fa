"""Data sets by name, the mapper, augmentations, loaders and the synthetic shapes."""
