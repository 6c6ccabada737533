"""What the model's commands can see and reach beside the workspace: nothing that matters."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid

import pytest
from ratchet.api import names
from ratchet.core.facts import CallOrder, Receipt
from ratchet.ports import SandboxAway

from tests.attack.conftest import ON_ONE_LOOP, RUNTIME
from tests.attack.raw import raw
from tests.e2e.box import Box, shown

pytestmark = ON_ONE_LOOP

AWAY_S = 60
"""How long a runner may take to come back."""

CALL = """
import ctypes, os, sys
name, *words = sys.argv[1:]
values = [int(word, 0) if word[0].isdigit() else word.encode() for word in words]
found = ctypes.CDLL(None, use_errno=True)[name](*values)
print(found, os.strerror(ctypes.get_errno()))
sys.exit(found == -1)
"""
SYSTEM = f"python3 -c '{CALL}'"
"""A function of the C library with these arguments; exit code 1 if it gives -1."""
REMOUNT = """
for flags in 0x20 0x1020; do python3 -c "import ctypes
ctypes.CDLL(None).mount(b\\"none\\", b\\"/ratchet/runtime\\", None, $flags, None)"; done
"""
FORBIDDEN = {
    "read_the_token": "cat /ratchet/secret/token",
    "read_the_servers_key": "cat /ratchet/secret/tls.key",
    "read_the_ledger": "cat /ratchet/ledger/ledger.db",
    "list_the_ledgers_folder": "ls /ratchet/ledger",
    "write_the_runtime": "touch /ratchet/runtime/planted",
    "replace_the_runners_python": "cp /bin/true /ratchet/runtime/bin/python3",
    "replace_the_runners_git": "cp /bin/true /ratchet/runtime/bin/git",
    "change_the_base_commit": "echo x > /ratchet/runtime/base.git/HEAD",
    "write_the_control_volume": "echo x > /ratchet/control/word",
    "remove_the_word": "rm -f /ratchet/control/word && test ! -e /ratchet/control/word",
    "read_a_service_account": "cat /var/run/secrets/kubernetes.io/serviceaccount/token",
    "read_shadow": "cat /etc/shadow",
    "write_passwd": "echo evil::0:0::/:/bin/sh >> /etc/passwd",
    "become_root_by_su": "echo | su -c id",
    "become_root_by_setuid": f"{SYSTEM} setuid 0",
    "become_the_server": f"{SYSTEM} setuid 10001",
    "setuid_bit_is_honoured": (
        "cp /usr/bin/id ./id && chmod u+s id && test \"$(./id -u)\" != \"$(id -u)\""
    ),
    "mount": f"{SYSTEM} mount none /mnt tmpfs 0 0",
    "mount_in_own_namespaces": f"unshare -Urm {SYSTEM} mount none /mnt tmpfs 0 0",
    "remount_the_runtime_in_own_namespaces": (
        f"unshare -Urm bash -c '{REMOUNT}; touch /ratchet/runtime/planted'"
    ),
    "chroot": "chroot / true",
    "change_the_hostname": "hostname evil",
    "load_a_module": "cat /dev/null > /proc/sys/kernel/modprobe",
    "trigger_sysrq": "echo h > /proc/sysrq-trigger",
    "write_sys": "echo 1 > /sys/kernel/mm/ksm/run",
    "make_a_device": "mknod disk b 8 0",
    "read_the_nodes_disk": "head -c 1 /dev/sda || head -c 1 /dev/vda",
    "read_kernel_memory": "head -c 1 /dev/mem || head -c 1 /dev/kmem || head -c 1 /proc/kcore",
    "sniff_the_pods_network": f"{SYSTEM} socket 17 3 0x0300",  # AF_PACKET, SOCK_RAW, all
    "raw_socket": f"{SYSTEM} socket 2 3 1",  # AF_INET, SOCK_RAW, ICMP
    "look_through_the_first_process": "ls /proc/1/root/ratchet/secret",
    "see_the_server": "pgrep -f 'ratchet_sandbox[.]server'",
    "other_users_processes": (
        "grep -h '^Uid' /proc/[0-9]*/status 2>/dev/null | grep -v '\\b10000\\b'"
    ),
    "container_runtime_socket": "ls /run/containerd/containerd.sock /var/run/docker.sock",
    "trace_the_first_process": f"{SYSTEM} ptrace 16 1 0 0",
    "read_the_first_process": "head -c 1 /proc/1/environ || head -c 1 /proc/1/mem",
    "reboot": f"{SYSTEM} reboot 0x1234567",
    "swap": f"{SYSTEM} swapon /workspace 0",
    "set_the_clock": "date -s 2001-01-01",
    "read_the_kernels_log": "dmesg",
}  # fmt: skip


IN_ITS_OWN_KERNEL = {
    "mount_in_own_namespaces": "gVisor lets anybody mount in namespaces of its own kernel",
    "read_the_kernels_log": "gVisor shows a log of its own making",
}


@pytest.mark.parametrize(("name", "command"), FORBIDDEN.items(), ids=FORBIDDEN.keys())
async def test_cannot(box: Box, name: str, command: str) -> None:
    if RUNTIME == "gvisor" and name in IN_ITS_OWN_KERNEL:
        pytest.skip(IN_ITS_OWN_KERNEL[name])
    tried = await box.bash(command)
    assert tried.outcome == "Failed", shown(tried)
    # A program that is missing, or a case that is misspelt, shows nothing.
    assert tried.exit_code != 127 and "Traceback" not in tried.content, shown(tried)


async def token_of(box: Box) -> str:
    """The token that the server of a sandbox asks for, as only the operator may know it."""
    secret = await box.kubectl.get("secret", box.pod)
    return base64.b64decode(secret["data"]["token"]).decode()


SEARCH = """(
t={first}; t=${{t}}{second}; echo ${{#t}}
cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -cFf <(printf %s $t)
timeout 50 grep -rlsF --devices=skip --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev \\
  -f <(printf %s $t) /
); true"""


async def found(box: Box, word: str) -> tuple[int, list[str]]:
    """In how many words of processes, and in which files, the shell finds this word.

    It gets it by halves, so that the command itself does not hold it.
    """
    half = len(word) // 2
    command = SEARCH.format(first=word[:half], second=word[half:])
    looked = await box.bash(command, timeout=60)
    length, processes, *files = looked.content.splitlines()
    assert int(length) == len(word), shown(looked)
    return int(processes), files


async def test_the_token_is_nowhere_that_the_shell_can_look(box: Box) -> None:
    assert await found(box, await token_of(box)) == (0, [])


async def test_a_word_that_is_there_is_found_by_the_same_search(box: Box) -> None:
    word = uuid.uuid4().hex
    await box.bash(f"echo {word} > /tmp/planted; (exec -a {word} sleep 100) >/dev/null 2>&1 &")
    processes, files = await found(box, word)
    assert processes == 1 and "/tmp/planted" in files, (processes, files)
    await box.bash("rm /tmp/planted; pkill sleep")


async def test_the_environment_names_nothing_of_the_cluster(box: Box) -> None:
    # The kubelet tells each container where the API server is; the runner does not pass it on.
    told = await box.bash("env")
    assert "KUBERNETES" not in told.content and "TOKEN" not in told.content.upper(), shown(told)


async def test_it_runs_without_capabilities_as_nobodys_user(box: Box) -> None:
    told = await box.bash("grep -E '^(CapEff|CapPrm|CapInh|CapAmb)' /proc/self/status; id -u")
    *capabilities, uid = told.content.splitlines()
    assert uid == "10000", shown(told)
    assert {line.split()[1] for line in capabilities} == {"0" * 16}, shown(told)


async def test_nothing_gives_it_more_rights_than_it_has(box: Box) -> None:
    told = await box.bash("grep NoNewPrivs /proc/self/status")
    assert told.content.split()[-1:] == ["1"], shown(told)


async def test_system_calls_are_filtered(box: Box) -> None:
    if RUNTIME != "runc":
        pytest.skip("gVisor's own kernel takes the calls; there is no filter to be seen inside")
    told = await box.bash("grep ^Seccomp: /proc/self/status")
    assert told.content.split()[-1:] == ["2"], shown(told)


ASK = """
python3 - <<'END'
import http.client, ssl
tls = ssl._create_unverified_context()
http = http.client.HTTPSConnection("127.0.0.1", 8443, context=tls, timeout=5)
http.request("{method}", "{path}", headers={headers})
answer = http.getresponse()
print(answer.status, answer.read()[:200])
END
"""
KEY = "0f3c9a1e-5555-4444-8888-121212121212/1/0"
REQUESTS = {
    "info_without_a_token": ("GET", "/v1/info", "{}"),
    "info_with_a_wrong_token": ("GET", "/v1/info", '{"Authorization": "Bearer 0123"}'),
    "info_with_an_empty_token": ("GET", "/v1/info", '{"Authorization": "Bearer "}'),
    "info_with_basic_auth": ("GET", "/v1/info", '{"Authorization": "Basic Og=="}'),
    "a_call_without_a_token": ("PUT", f"/v1/calls/{KEY}", "{}"),
    "a_higher_epoch_without_a_token": ("PUT", "/v1/epoch", "{}"),
    "a_file_without_a_token": ("GET", "/v1/files/x", "{}"),
    "a_path_that_is_not_there": ("GET", "/v1/nothing", "{}"),
    "another_method": ("DELETE", "/v1/info", "{}"),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())
async def test_the_server_refuses_from_inside(box: Box, request_: tuple[str, str, str]) -> None:
    method, path, headers = request_
    asked = await box.bash(ASK.format(method=method, path=path, headers=headers))
    assert asked.content.startswith("401 "), shown(asked)


HELLO = """
python3 - <<'END'
import json, socket
word = open("/ratchet/control/word").read() if {right} else "0" * 64
peer = socket.create_connection(("127.0.0.1", 8701), timeout=5)
peer.sendall(json.dumps({{"type": "hello", "word": word, "protocol": 1, "shell": "evil"}}).encode() + b"\\n")
print(peer.recv(1000) or "closed")
END
"""


async def test_a_runner_with_a_wrong_word_is_refused(box: Box) -> None:
    told = await box.bash(HELLO.format(right="False"))
    assert told.content == "closed", shown(told)
    assert (await box.bash("echo alive")).content == "alive"


async def test_a_forged_runner_learns_no_secret_and_hurts_its_own_task_alone(fresh: Box) -> None:
    first = fresh.order("bash", command="echo before; date +%N")
    before = await fresh.sandbox.run(first)
    token = await token_of(fresh)
    # The forger takes the place of its own runner: what it says is then what "the tool returned".
    order = fresh.order("bash", command=HELLO.format(right="True") + "sleep 1")
    forged = await fresh.sandbox.run(order)
    assert token not in forged.content
    assert forged.outcome in ("Ok", "Failed", "Killed", "Unknown"), shown(forged)
    # What was recorded before is as it was, and the task goes on.
    assert await insisted(fresh, first) == before
    await ended(fresh)
    after = await insisted(fresh, fresh.order("bash", command="echo after"))
    assert after.outcome == "Ok" and after.content.endswith("after"), shown(after)


async def insisted(box: Box, order: CallOrder) -> Receipt:
    """The end of a call that is sent again while the runner is away, as the operator does."""
    async with asyncio.timeout(2 * AWAY_S):
        while True:
            try:
                return await box.sandbox.run(order)
            except SandboxAway:
                await box.ready(AWAY_S)


async def ended(box: Box) -> None:
    """Have no command running: one may go on whose result was lost with its connection."""
    async with asyncio.timeout(AWAY_S):
        while True:
            told = await insisted(box, box.order("bash_kill", signal="KILL"))
            if told.outcome != "StillRunning":
                return


PLANTED = """
mkdir -p bin && for program in git rg python3 bash sh ld.so; do
  printf '#!/bin/sh\\ntouch /workspace/planted-ran\\nexit 0\\n' > bin/$program; done
chmod +x bin/*
export PATH=/workspace/bin LD_PRELOAD=/workspace/evil.so LD_LIBRARY_PATH=/workspace
export PYTHONPATH=/workspace PYTHONSTARTUP=/workspace/evil.py GIT_DIR=/workspace/evil.git
export GIT_EXTERNAL_DIFF=/workspace/bin/git GIT_SSH_COMMAND=/workspace/bin/git
export RIPGREP_CONFIG_PATH=/workspace/rgrc BASH_ENV=/workspace/evil.sh
echo 'raise SystemExit' > sitecustomize.py; echo --pre=/workspace/bin/rg > rgrc
echo needle > haystack
"""


async def test_planted_programs_and_variables_are_not_used_by_the_tools(fresh: Box) -> None:
    await fresh.bash(PLANTED)
    found = await fresh.use("grep", pattern="needle", path="haystack")
    assert found.outcome == "Ok" and "needle" in found.content, shown(found)
    read = await fresh.use("read_file", path="haystack")
    assert read.outcome == "Ok" and "needle" in read.content, shown(read)
    patch = await fresh.sandbox.patch()
    assert "haystack" in patch.inline
    with_path = "PATH=/usr/bin:/bin; unset LD_PRELOAD LD_LIBRARY_PATH; ls /workspace/planted-ran"
    assert (await fresh.bash(with_path)).outcome == "Failed"


HOOKS = """
git config core.fsmonitor 'touch /workspace/hook-ran; false'
git config core.hooksPath /workspace/hooks
git config diff.evil.textconv 'touch /workspace/hook-ran; cat'
git config filter.evil.clean 'touch /workspace/hook-ran; cat'
git config filter.evil.smudge 'touch /workspace/hook-ran; cat'
git config core.pager 'touch /workspace/hook-ran'
git config alias.diff '!touch /workspace/hook-ran'
echo '* filter=evil diff=evil' > .gitattributes
mkdir -p hooks && for hook in pre-commit post-index-change fsmonitor-watchman; do
  printf '#!/bin/sh\\ntouch /workspace/hook-ran\\n' > hooks/$hook; done; chmod +x hooks/*
echo changed > file; rm -f hook-ran
"""


async def test_git_settings_of_the_workspace_are_not_followed_when_the_patch_is_made(
    fresh: Box,
) -> None:
    await fresh.bash(HOOKS)
    patch = await fresh.sandbox.patch()
    assert patch.size > 0
    assert (await fresh.bash("ls /workspace/hook-ran")).outcome == "Failed"


async def test_a_removed_git_folder_does_not_lose_the_patch(fresh: Box) -> None:
    await fresh.bash("echo work > result.txt; rm -rf .git")
    patch = await fresh.sandbox.patch()
    assert patch.size > 0


async def test_a_fork_bomb_stops_neither_the_server_nor_the_next_command(fresh: Box) -> None:
    await fresh.bash("echo kept > kept")
    bomb = "i=0; while [ $i -lt 3000 ]; do sleep 300 & i=$((i+1)); done 2>/dev/null; echo through"
    order = fresh.order("bash", command=bomb, timeout=10)
    end = await insisted(fresh, order)
    assert end.outcome in ("Ok", "Failed", "Killed", "StillRunning", "TimedOut", "Unknown")
    # The server has what it needs, whatever the shell's container has left.
    async with raw(fresh) as server:
        begun = time.monotonic()
        assert (await server.info())["ledger"] == fresh.ref.ledger
        assert time.monotonic() - begun < 10
    await ended(fresh)
    await insisted(fresh, fresh.order("bash", command="kill -9 -1"))
    await goes_on(fresh)


async def test_a_memory_hog_is_killed_and_the_next_command_runs(fresh: Box) -> None:
    await fresh.bash("echo kept > kept")
    hog = "python3 -c 'x = bytearray(6 << 30); print(len(x))'"
    end = await insisted(fresh, fresh.order("bash", command=hog, timeout=30))
    assert end.outcome in ("Failed", "Killed", "Unknown"), shown(end)
    await goes_on(fresh)


async def goes_on(box: Box) -> None:
    """Commands run, in the same workspace; the runner may have to come back first."""
    async with asyncio.timeout(2 * AWAY_S):
        while True:
            after = await insisted(box, box.order("bash", command="cat kept"))
            if after.outcome != "Unknown":
                break
    assert after.outcome == "Ok" and after.content.startswith("kept"), shown(after)


async def test_many_small_files_do_not_stop_the_tools(fresh: Box) -> None:
    made = await fresh.bash(
        "mkdir many; cd many; python3 -c 'for i in range(20000): open(str(i), \"w\").close()'; cd ..",
        timeout=50,
    )
    assert made.outcome == "Ok", shown(made)
    found = await fresh.use("grep", pattern="nothing", path=".")
    assert found.outcome in ("Ok", "Failed"), shown(found)
    read = await fresh.use("write_file", path="after", content="x")
    assert read.outcome == "Ok", shown(read)


async def test_the_pod_says_what_the_restricted_standard_asks(box: Box) -> None:
    pod = await box.object()
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert not spec.get("hostNetwork") and not spec.get("hostPID") and not spec.get("hostIPC")
    assert not spec.get("shareProcessNamespace")
    for container in (*spec["containers"], *spec["initContainers"]):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["runAsNonRoot"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
    assert pod["metadata"]["labels"][names.LABEL_COMPONENT] == names.COMPONENT_SANDBOX


async def test_only_the_server_mounts_secret_and_ledger(box: Box) -> None:
    spec = (await box.object())["spec"]
    for container in (*spec["containers"], *spec["initContainers"]):
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        secret = mounted & {"secret", "ledger"}
        assert secret == ({"secret", "ledger"} if container["name"] == "server" else set())
