"""An OpenAI-compatible server: an engine that somebody else keeps well, behind one thin gateway with one policy.

client -> gateway (keys, limits, checks, metrics, chat page) -> engine (vLLM, llama.cpp, transformers) on loopback
"""
