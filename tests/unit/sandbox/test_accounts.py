"""The list of users that every container of a sandbox's shell gets."""

from pathlib import Path

from ratchet_sandbox import protocol
from ratchet_sandbox.runner import accounts
from ratchet_sandbox.runner.config import Config


def test_the_shell_has_a_name_and_a_home_and_root_is_still_root(tmp_path: Path) -> None:
    config = Config(workspace=Path("/workspace"), runtime=tmp_path, control=tmp_path)
    accounts.write(config)
    accounts.write(config)  # as after a restart of the init container
    path = tmp_path / accounts.PASSWD
    lines = [line.split(":") for line in path.read_text().splitlines()]
    assert all(len(fields) == 7 for fields in lines)
    own = next(fields for fields in lines if fields[2] == str(protocol.RUNNER_UID))
    assert own[0] == "ratchet" and own[5] == "/workspace/.ratchet/home"
    assert ["root", "x", "0", "0"] in [fields[:4] for fields in lines]
    assert path.stat().st_mode & 0o777 == 0o644
