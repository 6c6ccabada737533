"""The real sglang-router, as a process, in front of two fake SGLang servers."""
