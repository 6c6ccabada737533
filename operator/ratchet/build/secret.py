"""The Secret of a sandbox: what only its server container mounts."""

from __future__ import annotations

from ratchet.build.generation import Generation, Manifest

TOKEN = "token"
CERTIFICATE = "tls.crt"
KEY = "tls.key"


def sandbox_secret(
    generation: Generation, pod_uid: str, *, certificate: str, key: str, token: str
) -> Manifest:
    """Token, certificate and key of one generation; PEM and text, as the server reads them."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": generation.part_metadata(pod_uid),
        "type": "Opaque",
        "immutable": True,
        "stringData": {TOKEN: token, CERTIFICATE: certificate, KEY: key},
    }
