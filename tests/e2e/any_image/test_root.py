"""A class that allows root: what package managers do works, and what is secret stays so."""

from __future__ import annotations

import pytest
from ratchet.core.records import Outcome

from tests.e2e.any_image.conftest import start
from tests.e2e.box import Boxes, shown

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PACKAGE = r"""
set -e
mkdir -p /tmp/hello/DEBIAN /tmp/hello/usr/bin && cd /tmp
printf 'Package: hello-there\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: x\n' \
    > hello/DEBIAN/control
printf '#!/bin/sh\nadduser_to=$(id -u)\necho configured by $adduser_to > /etc/hello\n' \
    > hello/DEBIAN/postinst
printf '#!/bin/sh\necho hello there\n' > hello/usr/bin/hello-there
chmod 755 hello/DEBIAN/postinst hello/usr/bin/hello-there
dpkg-deb --build --root-owner-group hello hello.deb
"""
PORT_80 = """
import http.client, http.server, threading
server = http.server.HTTPServer(("127.0.0.1", 80), http.server.BaseHTTPRequestHandler)
threading.Thread(target=server.handle_request).start()
connection = http.client.HTTPConnection("127.0.0.1", 80)
connection.request("GET", "/")
print("answered", connection.getresponse().status)
"""


async def test_a_package_is_installed_and_runs(boxes: Boxes) -> None:
    box = await start(boxes, allow_root=True)
    built = await box.bash(f"({PACKAGE}) && whoami")
    assert built.outcome == Outcome.OK and built.content.endswith("root"), shown(built)
    installed = await box.bash("dpkg -i /tmp/hello.deb && hello-there && cat /etc/hello")
    assert installed.outcome == Outcome.OK, shown(installed)
    assert installed.content.splitlines()[-2:] == ["hello there", "configured by 0"]


async def test_users_are_made_and_files_given_to_them(boxes: Boxes) -> None:
    box = await start(boxes, allow_root=True)
    done = await box.bash(
        "useradd -m -u 1234 worker && touch f && chown worker f && stat -c %U f"
        " && setpriv --reuid 1234 --regid 1234 --clear-groups whoami && tail -n 1 /etc/passwd"
    )
    assert done.outcome == Outcome.OK, shown(done)
    assert done.content.splitlines()[:2] == ["worker", "worker"], shown(done)
    assert "worker:x:1234" in done.content


async def test_a_low_port_is_bound(boxes: Boxes) -> None:
    box = await start(boxes, allow_root=True)
    await box.use("write_file", path="/workspace/port.py", content=PORT_80)
    done = await box.bash("python3 port.py")
    assert done.outcome == Outcome.OK and "answered 501" in done.content, shown(done)


async def test_without_it_none_of_this_works(boxes: Boxes) -> None:
    box = await start(boxes)
    built = await box.bash(f"({PACKAGE})")
    assert built.outcome == Outcome.OK, shown(built)
    for command in ("dpkg -i /tmp/hello.deb", "useradd worker", "touch f && chown 1234 f"):
        done = await box.bash(command)
        assert done.outcome == Outcome.FAILED, shown(done)


async def test_ledger_token_and_certificate_stay_out_of_reach(boxes: Boxes) -> None:
    box = await start(boxes, allow_root=True)
    seen = await box.bash("ls /ratchet; ls /ratchet/control; ls /proc | grep -c '^[0-9]'")
    assert seen.content.split()[:3] == ["control", "runtime", "word"], shown(seen)
    mounts = await box.bash("awk '{ print $5 }' /proc/self/mountinfo | grep -E '^/(ratchet|work)'")
    assert sorted(mounts.content.split()) == ["/ratchet/control", "/ratchet/runtime", "/workspace"]
    others = await box.bash("cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c sandbox.[s]erver")
    assert others.content.startswith("0"), shown(others)


WAYS_OUT = (
    "touch /ratchet/runtime/bin/x",
    "mount -o remount,rw /ratchet/runtime",
    "touch /ratchet/control/x",
    "rm /ratchet/control/word",
    "mount -t tmpfs none /mnt",
    "unshare --mount true",
    "mknod /tmp/disk b 8 0",
    "echo 1 > /proc/sys/kernel/core_pattern",
    "echo b > /proc/sysrq-trigger",
    "dd if=/dev/mem of=/dev/null count=1",
    "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'",
    "cat /ratchet/ledger/*",
    "cat /ratchet/secret/*",
)


async def test_what_leads_out_of_the_container_is_refused(boxes: Boxes) -> None:
    box = await start(boxes, allow_root=True)
    done = {command: await box.bash(command) for command in WAYS_OUT}
    assert {command for command, one in done.items() if one.outcome != Outcome.FAILED} == set()
