"""What a deployment may set: one BONITO_* variable per field, read once at the start of a process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from bonito.errors import InvalidSettings

PREFIX = "BONITO_"
# The CLI's own four are read by the CLI, and tests have theirs.
NOT_SETTINGS = frozenset({"BONITO_API_URL", "BONITO_API_KEY", "BONITO_GATEWAY_URL", "BONITO_GATEWAY_KEY"})
TEST_PREFIX = "BONITO_TEST_"


class Settings(BaseModel):
    """One field per BONITO_* variable; units are part of the names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: SecretStr | None = Field(
        default=None, description="The runtime login; absent: the embedded Postgres in the data directory."
    )
    migration_database_url: SecretStr | None = Field(
        default=None, description="The login that `bonito migrate` and `bonito admin` use; it acts as bonito_owner."
    )
    maintenance_database_url: SecretStr | None = Field(
        default=None, description="A direct connection as a member of bonito_owner: indexes, partitions, retention."
    )
    data_dir: Path = Field(
        default=Path(".bonito"), description="Where `bonito up` keeps its database, keys and uploads."
    )
    cloud: Literal["local", "aws", "azure", "gcp"] = Field(default="local", description="Where this deployment runs.")
    local_roots: str = Field(
        default="", description="Folders below which `local` sources may lie, separated by the system's path separator."
    )
    egress_allow: str = Field(
        default="",
        description="Networks and hosts, comma-separated, that outgoing requests may reach besides public addresses.",
    )
    encryption_key: SecretStr | None = Field(
        default=None,
        description="Seals secrets: 32 bytes in base64, newest first, comma-separated; absent: a file in data_dir.",
    )
    database_pool_size: int = Field(default=4, ge=1, le=100, description="Connections of one process at most.")
    max_object_bytes: int = Field(default=50 * 2**20, ge=1, description="Larger documents are refused unread.")
    max_request_bytes: int = Field(
        default=20 * 2**20, ge=1024, description="Larger bodies on /v1 are refused with 413."
    )
    provider_timeout_s: float = Field(
        default=600.0, gt=0, description="How long the gateway waits for a provider's answer to begin."
    )
    worker_concurrency: int = Field(default=4, ge=1, le=64, description="Messages that one worker has in hand at once.")
    reconcile_minutes: int = Field(
        default=5, ge=1, description="How often a `local` source is compared with its documents."
    )
    ingest_queue: str = Field(
        default="",
        description="Messages to read documents: a queue's URL (AWS) or name (Azure), a Cloud Tasks queue (GCP).",
    )
    embed_queue: str = Field(default="", description="Messages to embed chunks; as BONITO_INGEST_QUEUE.")
    sync_queue: str = Field(default="", description="Messages to list sources; as BONITO_INGEST_QUEUE.")
    dead_letter_queue: str = Field(
        default="", description="Messages that can never be worked off, with their reason: a topic (GCP)."
    )
    queue_service: SecretStr | None = Field(
        default=None,
        description="Azure: where those queues are, https://ACCOUNT.queue.core.windows.net or a connection string.",
    )
    upload_bucket: str = Field(
        default="", description="Where uploads lie in a cloud: a bucket (AWS, GCP) or account/container (Azure)."
    )
    deployment_buckets: str = Field(
        default="", description="Further buckets of this deployment, comma-separated; none of them is ever a source."
    )
    public_url: str = Field(
        default="",
        pattern=r"^(https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*)?$",
        description="Where everybody reaches /api, as https://bonito.example.com; customers' clouds know Bonito by it.",
    )
    signing_key: str = Field(
        default="",
        description="Keys that sign Bonito's tokens, newest first, comma-separated: ARNs (AWS KMS), key URLs with a "
        "version (Key Vault), key versions (Cloud KMS); absent: a file in data_dir.",
    )
    secret_prefix: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9:/_.-]{0,200}$",
        description="What the names of customers' secrets begin with, before the organization's id: bonito/ (AWS, "
        "where that is the default), https://NAME.vault.azure.net/secrets/bonito- (Azure), "
        "projects/P/secrets/bonito- (GCP).",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity that is logged."
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Take every BONITO_* variable; an unknown one is an error, so that a typo cannot pass.

        Raises:
            InvalidSettings: one line that names each wrong variable and what is expected.
        """
        values = {name.removeprefix(PREFIX).lower(): value for name, value in environ.items() if is_setting(name)}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            wrong = "; ".join(
                _explain(str(detail["loc"][0]), detail["type"], detail["msg"]) for detail in error.errors()
            )
            raise InvalidSettings(wrong) from None  # the original prints the values, secrets too


def is_setting(name: str) -> bool:
    """Whether a variable is meant for a server."""
    return name.startswith(PREFIX) and name not in NOT_SETTINGS and not name.startswith(TEST_PREFIX)


def _explain(field: str, kind: str, message: str) -> str:
    name = f"{PREFIX}{field.upper()}"
    if kind == "extra_forbidden":
        return f"{name} is not a setting; docs/settings.md lists them"
    return f"{name}: {message[:1].lower()}{message[1:]}"
