"""ModelEndpoint: where and how a model is called, and how much may be asked of it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from ratchet.api import names
from ratchet.api.base import AGE, Column, Decimal, Kind, Model, Resource, Rule, chars, listed
from ratchet.api.common import CertificatesRef, SecretKeyRef
from ratchet.api.endpointstatus import ModelEndpointStatus
from ratchet.core.config import Engine

RESERVED_HEADERS: Final = (
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-smg-routing-key",
)
"""Headers, in lower case, that are the operator's own or belong to the connection."""

ANY_NAMESPACE: Final = "*"
CONNECT_S: Final = 5
TOTAL_S: Final = 600
BACKOFF_FIRST_S: Final = 1
BACKOFF_MOST_S: Final = 60
BREAKER_FAILURES: Final = 5
BREAKER_OPEN_S: Final = 30
CA_KEY: Final = "ca.crt"

_URL = r"^https?://(\[[0-9a-fA-F:.]+\]|[^\s/?#@:\[\]]+)(:[0-9]{1,5})?(/[^\s?#]*)?$"
_PORT = "url(self.url).getPort()"


class Header(Model):
    """A header of each request."""

    NOT_OURS: ClassVar[Rule] = Rule(
        rule=f"!(self.name.lowerAscii() in {list(RESERVED_HEADERS)})",
        message=(
            "a header of this name is the operator's own or the connection's: take it out; a"
            " key belongs into the Secret of apiKeySecretRef"
        ),
        field=".name",
    )
    RULES: ClassVar[tuple[Rule, ...]] = (NOT_OURS,)

    name: Annotated[str, chars(64, least=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the header: letters, digits, dots, dashes and underscores; each once, in whatever
    case. None that the operator or the connection sets, such as Authorization. Required."""
    value: Annotated[str, chars(1024, least=1, pattern=r"^[!-~]([ -~]*[!-~])?$")]
    """Its value, in ASCII, up to 1,024 characters. It can be read in the object: never a secret.
    Required."""


class Capacity(Model):
    """How much the endpoint takes at a time, from all tasks together."""

    requests: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Requests that may be under way, 1 to 10,000; further ones are queued. Default: what SGLang
    says at /v1/loads, else no limit. Mutable; holds at once."""
    tokens: Annotated[int, Field(ge=1024, le=1_000_000_000)] | None = None
    """Tokens, by estimate, that prompts and replies of all requests under way may have together, at
    least 1,024. A request that is larger runs alone. Default: what SGLang says at /v1/loads, else
    no limit. Mutable; holds at once."""


class Price(Model):
    """What a million tokens cost: decimal numbers in quotes, such as "0.15", in one currency that
    all endpoints share."""

    input_per_million: Decimal
    """A million tokens of prompts. Required. Mutable."""
    cached_input_per_million: Decimal | None = None
    """A million tokens of prompts that the server had in its cache. Default: as inputPerMillion.
    Mutable."""
    output_per_million: Decimal
    """A million tokens of replies, those of reasoning included. Required. Mutable."""


class Backoff(Model):
    """Pauses between tries. They double, and vary at random."""

    IN_ORDER: ClassVar[Rule] = Rule(
        rule=(
            f"(has(self.first) ? self.first : {BACKOFF_FIRST_S})"
            f" <= (has(self.most) ? self.most : {BACKOFF_MOST_S})"
        ),
        message=(
            f"the first pause is longer than the longest, which is {BACKOFF_MOST_S} s where"
            " most is not given: lower first or raise most"
        ),
        field=".first",
    )
    RULES: ClassVar[tuple[Rule, ...]] = (IN_ORDER,)

    first: Annotated[int, Field(ge=1, le=300)] | None = None
    """The first pause, in seconds, 1 to 300. Default: 1. Mutable."""
    most: Annotated[int, Field(ge=1, le=3600)] | None = None
    """The longest pause, in seconds, 1 to 3,600. Default: 60. Mutable."""


class Retry(Model):
    """How a request that failed is tried again."""

    attempts: Annotated[int, Field(ge=1, le=10)] | None = None
    """Most tries of one request that fail by connection, timeout or HTTP 5xx, 1 to 10, where task
    and profile do not say. Default: 3. Mutable."""
    backoff_seconds: Backoff | None = None
    """Pauses between tries. Default: 1 s, doubled up to 60 s. Mutable."""


class Timeouts(Model):
    """How long a model request may take."""

    IN_ORDER: ClassVar[Rule] = Rule(
        rule=(
            "!has(self.firstByteSeconds) || self.firstByteSeconds"
            f" <= (has(self.totalSeconds) ? self.totalSeconds : {TOTAL_S})"
        ),
        message=(
            "firstByteSeconds is longer than totalSeconds, which is"
            f" {TOTAL_S} where it is not given: lower the one or raise the other"
        ),
        field=".firstByteSeconds",
    )
    RULES: ClassVar[tuple[Rule, ...]] = (IN_ORDER,)

    connect_seconds: Annotated[int, Field(ge=1, le=300)] | None = None
    """Seconds until a connection stands, 1 to 300. Default: 5. Mutable."""
    first_byte_seconds: Annotated[int, Field(ge=1, le=7200)] | None = None
    """Seconds from the request until the first byte of the answer, 1 to 7,200. Requests are not
    streamed, so that this byte comes when the model has finished. Default: none but totalSeconds.
    Mutable."""
    total_seconds: Annotated[int, Field(ge=1, le=7200)] | None = None
    """Seconds until the whole reply is there, 1 to 7,200. Default: 600. Mutable."""


class Breaker(Model):
    """When an endpoint that fails is left alone for a while, by all tasks."""

    failures: Annotated[int, Field(ge=1, le=100)] | None = None
    """Failures in a row, without a success of any task between, after which nothing is sent, 1 to
    100. Default: 5. Mutable; holds at once."""
    open_seconds: Annotated[int, Field(ge=1, le=600)] | None = None
    """Seconds until one request is let through to try, 1 to 600; doubled while it fails, up to 5
    minutes. Default: 30. Mutable; holds at once."""


class ModelEndpointSpec(Model):
    """Where and how the model is called. A running task keeps what it started with; capacity,
    breaker and the key hold for it at once."""

    URL: ClassVar[Rule] = Rule(
        rule=f"isURL(self.url) && ({_PORT} == '' || (int({_PORT}) > 0 && int({_PORT}) < 65536))",
        message=(
            "url is not the address of a server: write it like http://sglang.models:30000/v1, with"
            " a port of 1 to 65535 if any"
        ),
        field=".url",
    )
    NAMES_ONCE: ClassVar[Rule] = Rule(
        rule=(
            "!has(self.headers) || self.headers.all(h, self.headers.exists_one(o,"
            " o.name.lowerAscii() == h.name.lowerAscii()))"
        ),
        message="headers has a name twice, as far as servers can tell: take one of the two out",
        field=".headers",
    )
    RULES: ClassVar[tuple[Rule, ...]] = (URL, NAMES_ONCE)

    url: Annotated[str, chars(2048, least=8, pattern=_URL)]
    """Base URL of an OpenAI-compatible server, up to and including /v1, such as
    http://sglang.models:30000/v1; /chat/completions is added to it. http or https, without user,
    query or fragment. Required. Mutable."""
    model: Annotated[str, chars(512, least=1)]
    """Name of the model, as the server lists it under /v1/models. Required. Mutable."""
    engine: Engine | None = None
    """What serves the model: SGLang lets the operator use what SGLang adds, such as ending a
    request at once; OpenAI is any other compatible server. Default: OpenAI. Mutable."""
    api_key_secret_ref: SecretKeyRef | None = None
    """The Secret key that holds the API key, sent as a bearer token. Where the Secret also has the
    key admin-key, requests of SGLang's admin API are sent with that one. Default: no key is sent.
    Mutable; a new key holds for running tasks too."""
    ca_config_map_ref: CertificatesRef | None = None
    """The ConfigMap with the certificates of the authorities to trust, as PEM, instead of the
    system's. Default: the system's. Mutable."""
    headers: Annotated[tuple[Header, ...], listed("map", most=16, keys=("name",))] | None = None
    """Headers that are added to each request, at most 16. Default: none. Mutable."""
    context_window: Annotated[int, Field(ge=1024, le=100_000_000)] | None = None
    """Tokens that a request and its reply may have together, at least 1,024. Old tool results are
    left out of the request before it is full. Default: unknown; the server's refusal is waited
    for. Mutable."""
    vision: bool | None = None
    """Whether the model takes images: tasks with contextImages need an endpoint that says so, and a
    fallback that does not is told without them. Default: false. Mutable."""
    capacity: Capacity | None = None
    """How much the endpoint takes at a time, from all tasks together. Default: what SGLang says,
    else no limit. Mutable; holds at once."""
    price: Price | None = None
    """What a million tokens cost. Default: unknown; status.cost of tasks is not shown. Mutable."""
    retry: Retry | None = None
    """How a request that failed is tried again. Default: 3 tries. Mutable."""
    timeouts: Timeouts | None = None
    """How long a model request may take. Default: 5 s to connect, 600 s in all. Mutable."""
    breaker: Breaker | None = None
    """When an endpoint that fails is left alone for a while. Default: after 5 failures in a row,
    for 30 s. Mutable; holds at once."""
    allowed_namespaces: (
        Annotated[
            tuple[
                Annotated[str, chars(63, least=1, pattern=r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$")],
                ...,
            ],
            listed("set", most=256),
        ]
        | None
    ) = None
    """Other namespaces whose tasks may name this endpoint in endpointRef and fallbacks, at most
    256; "*" is all. They use its key and never see it. Default: none but its own. Mutable; running
    tasks go on."""


class ModelEndpoint(Resource):
    """ModelEndpoint says where and how a model is called. A task without an endpointRef uses the
    one named "default"."""

    KIND: ClassVar[Kind] = Kind(
        plural=names.ENDPOINT_PLURAL,
        status_default={"observedGeneration": -1},
        columns=(
            Column(name="MODEL", path=".spec.model", description="Name of the model."),
            Column(name="URL", path=".spec.url", description="Base URL of the server."),
            Column(
                name="READY",
                path='.status.conditions[?(@.type=="Ready")].status',
                description="Whether it answers and serves the model.",
            ),
            Column(
                name="RUNNING",
                path=".status.running",
                description="Requests under way.",
                type="integer",
            ),
            Column(
                name="QUEUED",
                path=".status.queued",
                description="Requests that wait for a place.",
                type="integer",
            ),
            AGE,
            Column(name="ENGINE", path=".spec.engine", description="What serves it.", wide=True),
            Column(
                name="LATENCY",
                path=".status.latency.p50Seconds",
                description="Seconds that half of the last requests took at most.",
                type="number",
                wide=True,
            ),
            Column(
                name="CACHE",
                path=".status.cacheHitPercent",
                description="Share of prompt tokens from the server's cache, in percent.",
                type="integer",
                wide=True,
            ),
            Column(
                name="REASON",
                path='.status.conditions[?(@.type=="Ready")].reason',
                description="Why it is ready or not.",
                wide=True,
            ),
        ),
    )

    spec: ModelEndpointSpec
    """Where and how the model is called. Mutable; running tasks keep what they started with, but
    for capacity, breaker and the key."""
    status: ModelEndpointStatus = ModelEndpointStatus()
    """What the operator sees of the endpoint. Written by the operator only."""
