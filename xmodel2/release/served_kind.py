"""The weights that llama.cpp serves by default."""

SERVED_KIND = "q8_0"
"""The fastest at one stream and at many (benchmarks/README.md, `chat_speed`), for 0.0001 nats a token (docs/quantize.md)."""
