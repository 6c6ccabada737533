"""How this machine reaches its package index, lent to an image build and never kept in the image.

A build runs `pip install --require-hashes`; which index, proxy and certificates that needs is the
machine's business. They are mounted into the build, so no layer holds them.
"""

import configparser
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

TARGET = "/etc/pip.conf"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
CERTIFICATE_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_NOT_SETTINGS = {"PIP_CONFIG_FILE", "PIP_CERT", "PIP_TARGET", "PIP_PREFIX", "PIP_USER"}


def sources(environment: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """pip's configuration files, a later one overriding (pip 26 user guide, "Configuration")."""
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    found = [Path("/etc/pip.conf"), home / ".pip/pip.conf", config / "pip/pip.conf"]
    if named := environment.get("PIP_CONFIG_FILE"):
        found.append(Path(named))
    return tuple(found)


def merge(texts: Iterable[str], environment: Mapping[str, str], bundle: bool) -> str:
    """One configuration file that says what these files and PIP_* variables say."""
    settings = configparser.RawConfigParser()
    for text in texts:
        settings.read_string(text)
    if not settings.has_section("global"):
        settings.add_section("global")
    for name, value in sorted(environment.items()):
        if name.startswith("PIP_") and name not in _NOT_SETTINGS:
            settings.set("global", name.removeprefix("PIP_").lower().replace("_", "-"), value)
    for section in settings.sections():
        settings.remove_option(section, "cert")
    if bundle:
        settings.set("global", "cert", BUNDLE)
    written = io.StringIO()
    settings.write(written)
    return written.getvalue()


def certificates(environment: Mapping[str, str]) -> Path | None:
    """The machine's bundle of trusted certificates, if it has one."""
    named = [environment[name] for name in CERTIFICATE_VARIABLES if environment.get(name)]
    for candidate in [*named, BUNDLE]:
        if Path(candidate).is_file():
            return Path(candidate)
    return None


def wheel_folders(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Local folders that PIP_FIND_LINKS names and that exist."""
    words = environment.get("PIP_FIND_LINKS", "").split()
    return tuple(word for word in words if word.startswith("/") and Path(word).is_dir())


def volumes(scratch: Path, environment: Mapping[str, str]) -> list[str]:
    """Words of a buildah command line that lend the settings; writes into `scratch`."""
    bundle = certificates(environment)
    texts = [file.read_text() for file in sources(environment, Path.home()) if file.is_file()]
    mine = scratch / "pip.conf"
    mine.write_text(merge(texts, environment, bundle is not None))
    words = [f"--volume={mine}:{TARGET}:ro"]
    if bundle is not None:
        words.append(f"--volume={bundle.resolve()}:{BUNDLE}:ro")
    words += [f"--volume={folder}:{folder}:ro" for folder in wheel_folders(environment)]
    return words


def host_environment() -> Mapping[str, str]:
    """This machine's variables."""
    return os.environ
