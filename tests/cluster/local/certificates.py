"""Certificates and keys of a cluster, made with the `openssl` program."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.commands import find, run
from tests.cluster.errors import ClusterError

DAYS = "365"
NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"


@dataclass(frozen=True, slots=True)
class Person:
    """Who a certificate speaks for: Kubernetes takes the user from CN and groups from O."""

    file: str
    user: str
    group: str = ""

    @property
    def subject(self) -> str:
        """As openssl writes it."""
        return (f"/O={self.group}" if self.group else "") + f"/CN={self.user}"


def people(node: str) -> tuple[Person, ...]:
    """Every client of the API server that is not a pod."""
    return (
        Person("admin", "admin", "system:masters"),
        Person("apiserver-kubelet", "kube-apiserver", "system:masters"),
        Person("controller-manager", "system:kube-controller-manager"),
        Person("scheduler", "system:kube-scheduler"),
        Person("kube-proxy", "system:kube-proxy"),
        Person("coredns", "system:coredns"),
        Person("kubelet", f"system:node:{node}", "system:nodes"),
    )


def alternative_names(names: Sequence[str], addresses: Sequence[str]) -> str:
    """The line of a server certificate that lists what it may be called."""
    listed = [f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses]
    return "subjectAltName=" + ",".join(listed)


def openssl() -> str:
    """Path of the program."""
    found = find("openssl")
    if found is None:
        raise ClusterError("the program openssl is missing: install the package openssl")
    return found


def create(folder: Path, node: str, addresses: Sequence[str]) -> None:
    """Make everything below `folder`: ca, apiserver, service-account and one pair per client."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    _authority(folder)
    for person in people(node):
        _sign(folder, person.file, person.subject, "extendedKeyUsage=clientAuth")
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names += ["kubernetes.default.svc.cluster.local", "localhost", node]
    usage = "extendedKeyUsage=serverAuth\n" + alternative_names(names, addresses)
    _sign(folder, "apiserver", "/CN=kube-apiserver", usage)
    key = folder / "service-account.key"
    run([openssl(), "genrsa", "-out", key, "2048"])
    run([openssl(), "rsa", "-in", key, "-pubout", "-out", folder / "service-account.pub"])


def _authority(folder: Path) -> None:
    usage = "keyUsage=critical,digitalSignature,keyCertSign,cRLSign"
    files = ["-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.crt")]
    subject = ["-subj", "/CN=ratchet-local-ca", "-addext", usage]
    run([openssl(), "req", "-x509", *NEW_KEY.split(), "-days", DAYS, *subject, *files])


def _sign(folder: Path, name: str, subject: str, extensions: str) -> None:
    request, extra = folder / f"{name}.csr", folder / f"{name}.ext"
    extra.write_text("keyUsage=digitalSignature\n" + extensions + "\n")
    files = ["-keyout", str(folder / f"{name}.key"), "-out", str(request)]
    run([openssl(), "req", "-new", *NEW_KEY.split(), "-subj", subject, *files])
    authority = ["-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key")]
    words = ["-in", str(request), "-days", DAYS, "-set_serial", f"0x{_serial()}"]
    words += ["-extfile", str(extra), "-out", str(folder / f"{name}.crt")]
    run([openssl(), "x509", "-req", *authority, *words])
    request.unlink()
    extra.unlink()


def _serial() -> str:
    """A number of 16 random bytes."""
    return run([openssl(), "rand", "-hex", "16"]).strip()
