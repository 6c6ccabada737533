"""What a client may rely on when it talks to SGLang 0.5.23, as tests of any server."""
