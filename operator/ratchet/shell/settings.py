"""The operator's settings, read once from the environment.

`RATCHET_FAILPOINT` is none of them: only tests set it (`ratchet.shell.processfaults`).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ratchet.shell.targets import is_target


class SettingsError(Exception):
    """The environment does not make settings. The text names each variable and what is wrong."""


class Settings(BaseModel):
    """Each field is the variable `RATCHET_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    namespace: str = Field(default="ratchet-system", description="The operator's own namespace.")
    pod: str = Field(default_factory=socket.gethostname, description="Who holds Lease and tasks.")
    lease: str = Field(default="ratchet-operator", description="Name of the Lease.")
    server_image: str = Field(description="Image of the sandbox server.")
    runner_image: str = Field(description="Image that brings the runner into a sandbox.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_volumes: bool = Field(
        default=False,
        description="Whether sandboxes mount the runner's image, where all nodes can do that.",
    )
    watch_namespaces: tuple[str, ...] = Field(
        default=(), description="Namespaces to look after, separated by commas; empty means all."
    )
    pod_ip: str = Field(default="", description="The address of the operator's own pod.")
    probe_port: int = Field(default=8080, ge=0, le=65535, description="0 switches probes off.")
    probe_targets: tuple[str, ...] = Field(
        default=(),
        description="What sandboxes try to reach, to see whether their network policies hold, as "
        "address:port separated by commas; empty: the API server and the operator's own pod.",
    )
    survey_seconds: float = Field(
        default=300.0,
        gt=0,
        description="Between lists of all tasks, for what a watch missed. That is rare, and a list "
        "of all is not cheap.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("watch_namespaces", "probe_targets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(name.strip() for name in value.split(",") if name.strip())

    @field_validator("probe_targets")
    @classmethod
    def _addresses(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        for target in targets:
            if not is_target(target):
                raise ValueError(f"{target!r} is no address and port, such as 10.96.0.1:443")
        return targets


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings. Raises SettingsError."""
    raw = {
        name: environ[f"RATCHET_{name.upper()}"]
        for name in Settings.model_fields
        if environ.get(f"RATCHET_{name.upper()}", "") != ""
    }
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        wrong = "; ".join(
            f"RATCHET_{str(found['loc'][0]).upper()}: {found['msg']}" for found in error.errors()
        )
        raise SettingsError(f"the operator cannot start with this environment: {wrong}") from error
