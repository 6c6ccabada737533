"""A git server on loopback: repositories of a folder over HTTP, with a password if asked for."""

from __future__ import annotations

import base64
import contextlib
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "protocol.file.allow", "GIT_CONFIG_VALUE_1": "always",
}  # fmt: skip


def git(folder: Path, *arguments: str) -> str:
    """What git prints, with nobody's configuration."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@dataclass
class GitServer:
    """Serves ``root``; paths that start with ``/moved``, ``/broken`` or ``/stalled`` never reach
    git."""

    root: Path
    user: str = ""
    password: str = ""
    tls: Path | None = None
    """Certificate and key in one PEM file; with it the server speaks HTTPS."""
    host: str = "127.0.0.1"
    port: int = 0
    sent: list[str] = field(default_factory=list)
    """Authorization headers that came in, decoded."""
    closing: threading.Event = field(default_factory=threading.Event)

    def url(self, name: str) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{self.host}:{self.port}/{name}"

    def allows(self, header: str | None) -> bool:
        if header:
            self.sent.append(base64.b64decode(header.removeprefix("Basic ")).decode())
        return not self.password or self.sent[-1:] == [f"{self.user}:{self.password}"]


@contextlib.contextmanager
def serve(server: GitServer) -> Iterator[GitServer]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self._body())

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers["Content-Length"]))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _answer(self, body: bytes) -> None:
            if self.path.startswith("/stalled"):
                server.closing.wait()
            elif self.path.startswith("/broken"):
                self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            elif self.path.startswith("/moved"):
                self.send_response(HTTPStatus.MOVED_PERMANENTLY)
                self.send_header("Location", self.path.removeprefix("/moved"))
                self.end_headers()
            elif server.allows(self.headers.get("Authorization")):
                self._git(body)
            else:
                self.send_response(HTTPStatus.UNAUTHORIZED)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Content-Length", "0")
                self.end_headers()

        def _git(self, body: bytes) -> None:
            parts = urlsplit(self.path)
            environment = {
                **ENVIRONMENT,
                "GIT_PROJECT_ROOT": str(server.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": unquote(parts.path),
                "QUERY_STRING": parts.query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "REMOTE_ADDR": "127.0.0.1",
            }
            done = subprocess.run(
                ["git", "http-backend"],
                input=body,
                env=environment,
                capture_output=True,
                check=False,
            )
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            lines = [row.split(": ", 1) for row in head.decode().split("\r\n") if ": " in row]
            headers = dict(lines)
            self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer((server.host, server.port), Handler) as listener:
        server.port = listener.server_address[1]
        if server.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(server.tls)
            listener.socket = context.wrap_socket(
                listener.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            listener.shutdown()
            thread.join()


def make_repository(root: Path, name: str = "x.git") -> Path:
    """A bare repository whose content grows by `commit`, served under its name."""
    bare = root / name
    git(root, "init", "--quiet", "--bare", "--initial-branch=trunk", str(bare))
    git(bare, "config", "uploadpack.allowFilter", "false")
    return bare


def commit(bare: Path, files: dict[str, bytes | None], branch: str = "trunk") -> str:
    """A commit on a branch with these files changed, or removed where None. Its name."""
    work = bare.parent / f"work-{bare.name}"
    if not work.exists():
        git(bare.parent, "clone", "--quiet", str(bare), str(work))
    git(work, "switch", "--quiet", "--force-create", branch)
    for path, content in files.items():
        target = work / path
        if content is None:
            target.unlink()
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    git(work, "add", "--all", "--force", ".")
    git(work, "commit", "--quiet", "--allow-empty", "-m", f"change {len(files)}")
    git(work, "push", "--quiet", "--force", "origin", branch)
    return git(work, "rev-parse", "HEAD")


def make_authority(folder: Path) -> tuple[Path, str]:
    """A certificate for 127.0.0.1 that is its own authority: with its key in a file, and as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of our own")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = folder / "server.pem"
    file.write_bytes(text + secret)
    return file, text.decode()
