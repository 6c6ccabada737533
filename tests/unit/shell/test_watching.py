"""kopf is begun and ended by us: its credentials, signals, and errors."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import kopf
import pytest
import yaml
from ratchet.shell.main import kopf_settings
from ratchet.shell.watching import LOGIN_LIFE, LOGIN_PAUSE_S, Login, Watch

NOT_KOPFS_PATIENCE_S = 3.0
"""kopf would wait 5 s."""


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(file))
    write(file, "first")
    return file


def write(file: Path, token: str, server: str = "http://127.0.0.1:1") -> None:
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "it", "user": "me"}}],
        "clusters": [{"name": "it", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": token}}],
    }
    file.write_text(yaml.safe_dump(config))


class Slept:
    """A loop's clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def read(login: Login) -> kopf.ConnectionInfo:
    found = await login.read(settings=kopf.OperatorSettings())
    assert found is not None
    return found


async def test_a_token_is_read_anew_at_every_login(kubeconfig: Path) -> None:
    clock = Slept()
    login = Login(clock.time, clock.sleep)
    assert (await read(login)).token == "first"
    write(kubeconfig, "second")
    assert (await read(login)).token == "second"


async def test_the_same_token_counts_as_new_so_that_kopf_tries_it_again(kubeconfig: Path) -> None:
    clock = Slept()
    login = Login(clock.time, clock.sleep)
    first, again = await read(login), await read(login)
    assert first.token == again.token
    assert first != again


async def test_credentials_are_read_again_before_a_token_of_the_kubelet_ends(
    kubeconfig: Path,
) -> None:
    found = await read(Login())
    assert found.expiration is not None
    assert found.expiration.timestamp() - time.time() <= LOGIN_LIFE.total_seconds()
    assert LOGIN_LIFE.total_seconds() < 0.2 * 3600


async def test_what_is_refused_is_not_asked_for_at_full_speed(kubeconfig: Path) -> None:
    clock = Slept()
    login = Login(clock.time, clock.sleep)
    for _ in range(4):
        await read(login)
    assert clock.now == 1000 + 3 * LOGIN_PAUSE_S


async def test_without_credentials_kopf_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert await Login().read(settings=kopf.OperatorSettings()) is None


def watch() -> Watch:
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(Login().read)
    kopf.on.event("ratchet.run", "v1alpha1", "agenttasks", registry=registry)(lambda **_: None)
    return Watch(registry, kopf_settings(), ("work",))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_wait_and_kopf_follows_at_once(
    kubeconfig: Path, number: signal.Signals
) -> None:
    async with watch() as watching:
        loop_of_ours = asyncio.create_task(asyncio.Event().wait())
        os.kill(os.getpid(), number)
        await asyncio.wait_for(watching.until_stopped(), NOT_KOPFS_PATIENCE_S)
        assert not loop_of_ours.done()
        begun = time.monotonic()
    assert time.monotonic() - begun < NOT_KOPFS_PATIENCE_S
    await asyncio.sleep(0)
    assert not loop_of_ours.done(), "kopf would cancel it"
    loop_of_ours.cancel()


async def test_what_ends_kopf_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    async with watch() as watching:
        with pytest.raises(kopf.LoginError):
            await asyncio.wait_for(watching.until_stopped(), 10)
