"""xmodel2: train, understand and ship small language models the Xmodel-2 way (arXiv 2412.19638)."""

__version__ = "0.1.0"
