"""ModelEndpoint: where and how a model is called."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ratchet.api import names
from ratchet.api.base import AGE, Column, Kind, Model, Resource, chars
from ratchet.api.common import SecretKeyRef
from ratchet.core.config import Engine


class Timeouts(Model):
    """How long a model request may take."""

    connect_seconds: Annotated[int, Field(ge=1, le=300)] | None = None
    """Seconds until a connection stands, 1 to 300. Default: 5. Mutable."""
    total_seconds: Annotated[int, Field(ge=1, le=7200)] | None = None
    """Seconds until the whole reply is there, 1 to 7,200. Default: 600. Mutable."""


class ModelEndpointSpec(Model):
    """Where and how the model is called. A running task keeps what it started with."""

    url: Annotated[str, chars(2048, least=8, pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]
    """Base URL of an OpenAI-compatible server, up to and including /v1, such as
    http://sglang.models:30000/v1; /chat/completions is added to it. http or https, without user,
    query or fragment. Required. Mutable."""
    model: Annotated[str, chars(512, least=1)]
    """Name of the model, as the server lists it under /v1/models. Required. Mutable."""
    engine: Engine | None = None
    """What serves the model: SGLang lets the operator use what SGLang adds, such as ending a
    request at once; OpenAI is any other compatible server. Default: OpenAI. Mutable."""
    api_key_secret_ref: SecretKeyRef | None = None
    """The Secret key that holds the API key, sent as a bearer token. Default: no key is sent.
    Mutable; a new key holds for running tasks too."""
    context_window: Annotated[int, Field(ge=1024, le=100_000_000)] | None = None
    """Tokens that a request and its reply may have together, at least 1,024. Default: unknown; the
    server's refusal is waited for. Mutable."""
    timeouts: Timeouts | None = None
    """How long a model request may take. Default: 5 s to connect, 600 s in all. Mutable."""


class ModelEndpoint(Resource):
    """ModelEndpoint says where and how a model is called. A task without an endpointRef uses the
    one named "default"."""

    KIND: ClassVar[Kind] = Kind(
        plural=names.ENDPOINT_PLURAL,
        columns=(
            Column(name="MODEL", path=".spec.model", description="Name of the model."),
            Column(name="URL", path=".spec.url", description="Base URL of the server."),
            Column(name="ENGINE", path=".spec.engine", description="What serves it.", wide=True),
            AGE,
        ),
    )

    spec: ModelEndpointSpec
    """Where and how the model is called. Mutable; running tasks keep what they started with."""
