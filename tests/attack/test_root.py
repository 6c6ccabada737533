"""A shell that is root by its class: more of its own container, and nothing of anybody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.attack.conftest import ON_ONE_LOOP, RUNTIME, shape
from tests.attack.test_isolation import (
    ASK,
    FORBIDDEN,
    IN_ITS_OWN_KERNEL,
    SYSTEM,
    found,
    token_of,
)
from tests.e2e.box import Box, Boxes, shown

pytestmark = ON_ONE_LOOP

ALLOWED = (
    "become_root_by_su",
    "become_root_by_setuid",
    "become_the_server",
    "change_the_hostname",
    "chroot",
    "mount_in_own_namespaces",
    "other_users_processes",
    "raw_socket",
    "read_shadow",
    "setuid_bit_is_honoured",
    "write_passwd",
)
"""What root may do in its own container, or what means another thing there."""
STILL = {name: command for name, command in FORBIDDEN.items() if name not in ALLOWED} | {
    "remount_the_runtime": f"{SYSTEM} mount none /ratchet/runtime none 0x1020 0",
    "remount_the_word": f"{SYSTEM} mount none /ratchet/control none 0x1020 0",
    "make_a_device_by_a_call": f"{SYSTEM} mknod /tmp/disk 0x61b0 0x800",
    "sniff_the_servers_traffic": f"{SYSTEM} socket 17 3 0x0300",
    "change_the_pods_network": f"{SYSTEM} setns 0 0x40000000",
    "read_by_handle": f"{SYSTEM} open_by_handle_at 100 / 0",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def root(boxes: Boxes) -> AsyncIterator[Box]:
    """A sandbox whose class allows root."""
    made = await boxes.make(shape(allow_root=True))
    await made.ready()
    yield made
    await boxes.remove(made)


async def test_it_is_root_and_may_write_its_own_system(root: Box) -> None:
    told = await root.bash("id -u; touch /usr/bin/mine && chown 1234 /usr/bin/mine && echo done")
    assert told.content.split() == ["0", "done"], shown(told)


@pytest.mark.parametrize(("name", "command"), STILL.items(), ids=STILL.keys())
async def test_even_root_cannot(root: Box, name: str, command: str) -> None:
    if RUNTIME == "gvisor" and name in IN_ITS_OWN_KERNEL:
        pytest.skip(IN_ITS_OWN_KERNEL[name])
    tried = await root.bash(command)
    assert tried.outcome == "Failed", shown(tried)
    assert tried.exit_code != 127 and "Traceback" not in tried.content, shown(tried)


async def test_even_root_finds_no_token(root: Box) -> None:
    assert await found(root, await token_of(root)) == (0, [])


async def test_even_root_is_refused_by_the_server(root: Box) -> None:
    asked = await root.bash(ASK.format(method="GET", path="/v1/info", headers="{}"))
    assert asked.content.startswith("401 "), shown(asked)


async def test_even_root_has_no_capability_that_reaches_beyond_its_container(root: Box) -> None:
    told = await root.bash("grep ^CapBnd /proc/self/status")
    held = int(told.content.split()[1], 16)
    # capability.h: NET_ADMIN, NET_RAW, SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, MKNOD, BPF
    for number in (12, 13, 16, 17, 19, 21, 27, 39):
        assert not held >> number & 1, (number, shown(told))


async def test_root_of_the_shell_is_not_root_of_the_patch(root: Box) -> None:
    await root.bash("echo work > work; chown -R 0:0 /workspace; chmod -R go-rwx /workspace")
    patch = await root.sandbox.patch()
    assert "work" in patch.inline


async def test_a_root_file_system_that_is_read_only_stays_so(boxes: Boxes) -> None:
    box = await boxes.make(shape(allow_root=True, read_only_root=True))
    await box.ready()
    for path in ("/usr/bin/planted", "/etc/planted", "/root/planted"):
        tried = await box.bash(f"touch {path}")
        assert tried.outcome == "Failed", shown(tried)
    worked = await box.bash("touch /tmp/mine mine && echo done")
    assert worked.content == "done", shown(worked)
    await boxes.remove(box)
