"""The settings of a gateway, typed.

In order of precedence: flags, `MESH_*` in the environment (a secret also as `…_FILE`), the TOML
file that `--config` or MESH_CONFIG names, defaults.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Self

import structlog
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from jarvis_mesh.config.environment import (
    PREFIX,
    unknown_names,
)
from jarvis_mesh.config.jwks_url import check_jwks_url
from jarvis_mesh.config.log import LogSettings
from jarvis_mesh.config.nats_url import check_nats_urls
from jarvis_mesh.config.networks import check_host, check_origin, parse_network
from jarvis_mesh.config.settings_sources import (
    NATS_URLS,
    ConfigFile,
    SecretFiles,
    explain,
    variables,
)
from jarvis_mesh.config.units import parse_bytes, parse_duration
from jarvis_mesh.schema.errors import SetupError
from jarvis_mesh.schema.nats_credentials import NatsCredentials, public_nkey
from jarvis_mesh.schema.types import BUILT_IN_FAMILIES, check_families
from jarvis_mesh.schema.wire import MAX_MESSAGE_BYTES

MIN_SECRET_BYTES: Final = 32
"""Of a secret for HS256: as long as the hash (RFC 7518, section 3.2)."""
NATS_SECURITY: Final = (
    "nats_ca",
    "nats_cert",
    "nats_key",
    "nats_nkey_seed",
    "nats_admin_nkey_seed",
)
"""What says how a connection to NATS is secured, beside its URL."""
_CENTURY: Final = 100 * 365 * 86_400.0

log = structlog.get_logger(__name__)


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Duration = Annotated[
    float,
    BeforeValidator(lambda value: parse_duration(value) if isinstance(value, str) else value),
    Field(allow_inf_nan=False),
]
Bytes = Annotated[
    int, BeforeValidator(lambda value: parse_bytes(value) if isinstance(value, str) else value)
]
# Without NoDecode pydantic-settings wants JSON in the environment.
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]


class Settings(BaseSettings):
    """What an operator chooses. Made by `load`; a secret shows in no repr."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,  # compose files pass what is unset as ""
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    config: Path | None = None
    """The TOML file that the other settings may come from."""
    nats_url: SecretStr = SecretStr("nats://127.0.0.1:4222")
    """NATS as the user `gateway`; several URLs are separated by commas."""
    nats_admin_url: SecretStr | None = None
    """NATS as the user `admin`: only who has it makes or updates the log."""
    nats_ca: Path | None = None
    """PEM file of the authorities whose certificates NATS may show; the system's without it."""
    nats_cert: Path | None = None
    """PEM file of the client certificate for NATS."""
    nats_key: Path | None = None
    """PEM file of its private key."""
    nats_nkey_seed: SecretStr | None = None
    """The user `gateway`'s nkey, instead of user and password in the URL."""
    nats_admin_nkey_seed: SecretStr | None = None
    """The user `admin`'s, likewise."""
    host: str = "127.0.0.1"
    port: int = Field(3200, ge=0, le=65_535)
    """0 picks a free one."""
    workers: int = Field(1, ge=1, le=256)
    """Processes of `mesh gateway` that serve; `mesh up` has one."""
    families: Names = BUILT_IN_FAMILIES
    """First tokens of the event types that the log stores."""
    allowed_origins: Names = ()
    """Origins of web pages, beside the gateway's own, that may use it."""
    allowed_hosts: Names = ()
    """Names in `Host`, beside those of this machine, that are the gateway's; `*` is any."""
    trusted_proxies: Names = ()
    """Addresses or networks whose X-Forwarded-For says who the client is."""
    insecure: bool = False
    """Whether to listen beyond this machine without authentication."""
    jwt_secret: SecretStr | None = None
    """What tokens are signed with (HS256): with it, or `jwks_url`, nobody is served without one."""
    jwks_url: str | None = None
    """Where the issuer's public keys are (RS256, ES256, EdDSA): https, or a file's URL."""
    jwt_issuer: str | None = None
    """The `iss` that tokens must have."""
    jwt_audience: str | None = None
    """The `aud` that tokens must have, or have among others."""
    query_tokens: bool = False
    """Whether a browser's EventSource may give its token in the URL, as `access_token`."""
    auth_timeout: Duration = Field(10.0, gt=0, le=600)
    """Seconds that a client has for its first token, once it is connected."""
    tls_cert: Path | None = None
    """PEM file of the certificate and its chain, with which clients are served over TLS."""
    tls_key: Path | None = None
    """PEM file of its key."""
    header_timeout: Duration = Field(10.0, gt=0, le=600)
    """Seconds that a client has for the head of a request, and for its part of a TLS handshake."""
    max_header_bytes: Bytes = Field(16 * 1024, ge=1024, le=1024**2)
    """What the head of a request may have."""
    max_connections_per_address: int = Field(256, ge=1, le=1_000_000)
    """Of one process; so are the limits below."""
    max_connections_per_user: int = Field(256, ge=1, le=1_000_000)
    requests_per_second: float = Field(100, gt=0, le=1_000_000)
    """Handshakes and HTTP requests from one address; ten seconds' worth may come at once."""
    limit_loopback: bool = False
    """Whether clients on this machine are limited by their address too."""
    messages_per_second: float = Field(200, gt=0, le=1_000_000)
    """Of one user; ten seconds' worth may come at once."""
    message_bytes: Bytes = Field(MAX_MESSAGE_BYTES, ge=1024, le=16 * 1024**2)
    """Of one message, or of the body of a request."""
    max_subscriptions: int = Field(100, ge=1, le=10_000)
    """Of one connection."""
    max_channels: int = Field(100, ge=1, le=1_000)
    """Of one subscription."""
    max_replays: int = Field(200, ge=1, le=100_000)
    """At once, of one user."""
    max_replay_age: Duration | None = Field(None, ge=1, le=_CENTURY)
    """Seconds that a replay may go back; `None` for all of the log."""
    log_max_age: Duration = Field(7 * 86_400.0, ge=1, le=_CENTURY)
    """Seconds that an event is kept."""
    log_max_bytes: Bytes = Field(10 * 1024**3, ge=2 * 1024**2, le=1024**6)
    """At least room for two of the largest events."""
    log_replicas: int = Field(1, ge=1, le=5)
    """Three in a cluster."""
    heartbeat: Duration = Field(15.0, gt=0, le=3600)
    """Seconds after which a silent connection is told its cursor."""
    drain: Duration = Field(5.0, ge=0, le=600)
    """Seconds that clients get to leave when the gateway stops."""
    high_water_bytes: Bytes = Field(32 * 1024, ge=4 * 1024, le=16 * 1024**2)
    """What a client that takes nothing may leave unsent before it has to catch up."""
    flush_interval: Duration = Field(0.01, ge=0, le=1)
    """Seconds that a live event may wait for others under load, at most."""
    stalled_after: Duration = Field(600.0, ge=1, le=86_400)
    """Seconds after which a client that takes nothing at all is closed."""

    @classmethod
    def load(cls, *, config: Path | None = None, **flags: Any) -> Self:
        """Return the settings, having warned about `MESH_*` names that nothing reads.

        Args:
            config: The TOML file; that of MESH_CONFIG when `None`.
            flags: Settings by name, which win; `None` stands for a flag that wasn't given.

        Raises:
            SetupError: a value is wrong; the message names it and says what is right.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        if config is not None:
            given["config"] = config
        for sentence in unknown_names(os.environ, variables(cls)):
            log.warning(sentence)
        try:
            settings = cls(**given)
        except ValidationError as error:
            raise SetupError(explain(error, given)) from None
        _ = settings.nats_credentials  # raises where half of a certificate is missing
        return settings

    @property
    def nats_credentials(self) -> NatsCredentials:
        """Those of the user `gateway`."""
        return self._credentials(self.nats_nkey_seed)

    @property
    def nats_admin_credentials(self) -> NatsCredentials:
        """Those of the user `admin`."""
        return self._credentials(self.nats_admin_nkey_seed)

    def _credentials(self, seed: SecretStr | None) -> NatsCredentials:
        return NatsCredentials(
            self.nats_ca,
            self.nats_cert,
            self.nats_key,
            nkey_seed=seed.get_secret_value() if seed else None,
        )

    @property
    def has_authentication(self) -> bool:
        """Whether clients need a token."""
        return self.jwt_secret is not None or self.jwks_url is not None

    @property
    def may_be_reached(self) -> bool:
        """Whether other machines may be let in."""
        return self.insecure or self.has_authentication

    @property
    def log(self) -> LogSettings:
        """What concerns the log."""
        return LogSettings(self.families, self.log_max_age, self.log_max_bytes, self.log_replicas)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the sources in their order. A `.env` file is not read: it'd be one way too many."""
        return (
            init_settings,
            env_settings,
            SecretFiles(settings_cls),
            ConfigFile(settings_cls),
        )

    @field_validator("nats_nkey_seed", "nats_admin_nkey_seed")
    @classmethod
    def _check_seeds(cls, seed: SecretStr | None) -> SecretStr | None:
        if seed is not None:
            try:
                public_nkey(seed.get_secret_value())
            except SetupError as error:
                raise ValueError(error.message) from None
        return seed

    @field_validator(*NATS_URLS)
    @classmethod
    def _check_nats_urls(cls, urls: SecretStr | None) -> SecretStr | None:
        if urls is not None:
            check_nats_urls(urls.get_secret_value())
        return urls

    @field_validator("jwt_secret")
    @classmethod
    def _check_jwt_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(
                f"it needs {MIN_SECRET_BYTES} bytes or more: `openssl rand -hex 32` makes one"
            )
        return secret

    @field_validator("jwks_url")
    @classmethod
    def _check_jwks_url(cls, url: str | None) -> str | None:
        if url is not None:
            check_jwks_url(url)
        return url

    @field_validator("families")
    @classmethod
    def _check_families(cls, families: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return check_families(families)
        except SetupError as error:
            raise ValueError(error.message) from None

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(check_origin, origins))

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(check_host, hosts))

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(parse_network(proxy)) for proxy in proxies)
