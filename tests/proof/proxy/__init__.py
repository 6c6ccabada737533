"""Parts of the proxy in front of the API server (`tests.proof.apiproxy`)."""
