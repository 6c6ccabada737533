"""The bare HTTPS server: ``python -m benchmarks.sandbox.https FOLDER PORT``.

It answers any request with two bytes. FOLDER has tls.crt and tls.key.
"""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

from aiohttp import web


async def answer(_: web.Request) -> web.Response:
    return web.json_response({})


def main(folder: Path, port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    app = web.Application()
    app.add_routes([web.put("/", answer)])
    web.run_app(app, host="127.0.0.1", port=port, ssl_context=context, print=None, access_log=None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
