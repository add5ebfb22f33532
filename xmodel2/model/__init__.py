"""The decoder, its tensor-program rules, generation, and conversion to native formats."""

from xmodel2.model.decoder import KVCache, Xmodel2

__all__ = ["KVCache", "Xmodel2"]
