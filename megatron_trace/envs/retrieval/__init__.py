"""Retrievers: what a search of an environment asks, in its own process or over HTTP."""

from megatron_trace.envs.retrieval.passages import Passage, Retriever, RetrieverFailed

__all__ = ["Passage", "Retriever", "RetrieverFailed"]
