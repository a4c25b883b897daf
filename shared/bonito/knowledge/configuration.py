"""Creating and changing knowledge bases: what a caller may ask for, checked, decided and stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Self
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from bonito.database.pool import Connection, Pool, tenant
from bonito.errors import InvalidRequest, ModelNotFound, StateConflict
from bonito.knowledge import bases, generations, language, limits
from bonito.knowledge.bases import KnowledgeBase, Options
from bonito.knowledge.generations import Generation, Pinned
from bonito.knowledge.metadata import Metadata
from bonito.knowledge.sources import PRINTABLE, SourceConfig, SourcePolicy, check_connection
from bonito.providers.base import EmbeddingModels
from bonito.tenancy import tiers
from bonito.tenancy.tiers import Tier

DEFAULT_OVERLAP = 50
CRON_FIELDS = 5
REBUILDING = frozenset({"embedding_model", "chunk_size", "chunk_overlap", "language"})
# Two changes at once of how one base is built are rare; whoever is overtaken again and again is told.
ATTEMPTS = 5


def check_cron(expression: str) -> str:
    """Give a cron expression of five fields back; InvalidRequest where it has no meaning or no moment ever fits it."""
    from datetime import UTC, datetime

    from croniter import CroniterError, croniter

    if len(expression.split()) != CRON_FIELDS:
        raise InvalidRequest(
            "A schedule is a cron expression of five fields: minute, hour, day, month, day of the week.",
            param="sync_schedule",
        )
    try:
        croniter(expression, datetime.now(UTC)).get_next(datetime)
    except (CroniterError, ValueError, KeyError, IndexError, OverflowError):
        raise InvalidRequest(
            "The schedule is no cron expression, or there is no such moment.", param="sync_schedule"
        ) from None
    return expression


def check_timezone(name: str) -> str:
    """Give the name of a time zone back; InvalidRequest unless this machine's zone data knows it."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError; a folder's name is an OSError
        raise InvalidRequest(
            "There is no such time zone in the IANA database; Europe/Berlin is one.", param="sync_timezone"
        ) from None
    return name


def is_number(value: object) -> object:
    """Give a number back as JSON has them: 5 and 5.0 are the same, `true` and "5" are none."""
    if isinstance(value, bool | str | bytes):
        raise ValueError("a number is expected")
    return value


BaseName = Annotated[
    str,
    Field(description="Unique in the organization; letters, digits, dots, dashes; not a UUID."),
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$"),
    AfterValidator(bases.check_name),
]
Description = Annotated[str, StringConstraints(max_length=4000, pattern=r"^[^\x00]*$")]
ModelName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=PRINTABLE),
    Field(description="`provider/model`, or `auto`: the organization's choice when a generation begins."),
]
# Bounds before the validator, or the description of the interface would not have them.
ChunkSize = Annotated[int, Field(ge=16, le=8192, description="Tokens per chunk at most."), BeforeValidator(is_number)]
ChunkOverlap = Annotated[
    int, Field(ge=0, le=8191, description="Tokens that neighbouring chunks share."), BeforeValidator(is_number)
]
Language = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z_]{0,62}$"),
    Field(description="A text search configuration of Postgres, `simple`, or `auto`: the first text tells."),
]
Cron = Annotated[str, StringConstraints(max_length=100), AfterValidator(check_cron)]
TimeZone = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_+/-]{1,64}$"), AfterValidator(check_timezone)]


class NewKnowledgeBase(BaseModel):
    """What POST /api/knowledge-bases takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: BaseName
    description: Description = ""
    source: SourceConfig
    embedding_model: ModelName = "auto"
    chunk_size: ChunkSize = 512
    chunk_overlap: ChunkOverlap | None = Field(
        default=None, description="Below chunk_size; 50 where nothing is said, or a quarter of a small chunk."
    )
    language: Language = "auto"
    sync_schedule: Cron | None = None
    sync_timezone: TimeZone = "UTC"
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _overlap_is_below_the_size(self) -> Self:
        if self.chunk_overlap is not None and self.chunk_overlap >= self.chunk_size:
            raise InvalidRequest("chunk_overlap must be below chunk_size.", param="chunk_overlap")
        return self

    def options(self) -> Options:
        """Everything but the source, as it is stored."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name != "source"}
        if self.chunk_overlap is None:
            given["chunk_overlap"] = min(DEFAULT_OVERLAP, self.chunk_size // 4)
        return Options(**given)


class KnowledgeBaseChange(BaseModel):
    """What PUT takes: a member that is absent or null stays as it is; `sync_schedule: null` ends the schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: BaseName | None = None
    description: Description | None = None
    source: SourceConfig | None = Field(default=None, description="Only the one that it has; a source is for life.")
    embedding_model: ModelName | None = None
    chunk_size: ChunkSize | None = None
    chunk_overlap: ChunkOverlap | None = None
    language: Language | None = None
    sync_schedule: Cron | None = None
    sync_timezone: TimeZone | None = None
    metadata: Metadata | None = None

    def applied_to(self, base: KnowledgeBase) -> Options:
        """The base's options after the change; InvalidRequest where old and new do not fit together."""
        present = Options(**{name: getattr(base, name) for name in Options.__dataclass_fields__})
        given: dict[str, Any] = {
            name: getattr(self, name)
            for name in self.model_fields_set - {"source"}
            if getattr(self, name) is not None or name == "sync_schedule"
        }
        options = replace(present, **given)
        if options.chunk_overlap >= options.chunk_size:
            raise InvalidRequest(
                f"chunk_overlap ({options.chunk_overlap}) must be below chunk_size ({options.chunk_size}); "
                "what is not sent stays as it is.",
                param="chunk_overlap",
            )
        return options

    def rebuilds(self, base: KnowledgeBase) -> bool:
        """Whether chunks or vectors may come out differently; an embedding model that is named is looked at anew."""
        options = self.applied_to(base)
        changed = {name for name in REBUILDING if getattr(options, name) != getattr(base, name)}
        return bool(changed) or self.embedding_model is not None


async def create_base(
    pool: Pool, models: EmbeddingModels, *, org_id: UUID, new: NewKnowledgeBase, sources: SourcePolicy
) -> KnowledgeBase:
    """Create a base and its first generation, which is built as documents come.

    Raises:
        InvalidRequest: a source that this deployment does not read or the connection not reach, or an unknown model or
            language.
        AlreadyExists: the name is taken.
        TierLimit: the organization's tier does not allow another base, a schedule, or the choice of a model.
    """
    knowledge_base_id, options = uuid4(), new.options()
    async with tenant(pool, org_id) as conn:
        tier = await tiers.tier_of(conn, org_id=org_id)
    _check_tier(tier, sync_schedule=options.sync_schedule, embedding_model=options.embedding_model)
    source = sources.admit(new.source, knowledge_base_id=knowledge_base_id)
    pinned = await _pin(pool, models, org_id=org_id, options=options)
    async with tenant(pool, org_id) as conn, limits.guarded(conn, org_id=org_id, tier=tier):
        await check_connection(conn, org_id=org_id, source=source)
        return await bases.create(
            conn,
            org_id=org_id,
            knowledge_base_id=knowledge_base_id,
            generation_id=uuid4(),
            options=options,
            source=source,
            pinned=pinned,
        )


async def change_base(
    pool: Pool,
    models: EmbeddingModels,
    *,
    org_id: UUID,
    name_or_id: str,
    change: KnowledgeBaseChange,
    sources: SourcePolicy,
) -> tuple[KnowledgeBase, Generation | None]:
    """Store the change; where chunks or vectors would differ, begin a generation beside the served one.

    Returns:
        The base, and the generation that is building now because of this change: the caller has the base synced, so
        that its documents are sent to work for it. None where nothing is built anew.

    Raises:
        KnowledgeBaseNotFound: there is no such base.
        InvalidRequest: another source, or values that do not fit together or to this deployment.
        AlreadyExists: another base has the new name.
        TierLimit: the organization's tier does not allow a schedule, or the choice of a model.
        StateConflict: others kept changing the base meanwhile.
    """
    for _ in range(ATTEMPTS):
        async with tenant(pool, org_id) as conn:
            seen = await bases.get(conn, org_id=org_id, name_or_id=name_or_id)
            tier = await tiers.tier_of(conn, org_id=org_id)
        _check_tier(tier, sync_schedule=change.sync_schedule, embedding_model=change.embedding_model)
        _check_source(seen, change, sources)
        rebuilds, options = change.rebuilds(seen), change.applied_to(seen)
        pinned = await _pin(pool, models, org_id=org_id, options=options) if rebuilds else None
        async with tenant(pool, org_id) as conn:
            base = await bases.lock(conn, org_id=org_id, knowledge_base_id=seen.id)
            present = change.applied_to(base)
            is_stale = change.rebuilds(base) if pinned is None else _build_of(present) != _build_of(options)
            if is_stale:
                continue  # somebody else changed what is built while the model was looked up
            changed = await bases.update(conn, org_id=org_id, knowledge_base_id=base.id, options=present)
            if pinned is None:
                return changed, None
            building = await _begin(conn, org_id=org_id, before=base, pinned=pinned, options=present)
            return await bases.get(conn, org_id=org_id, name_or_id=str(base.id)), building
    raise StateConflict("Others changed this knowledge base at the same time; look at it and send the change again.")


async def _pin(pool: Pool, models: EmbeddingModels, *, org_id: UUID, options: Options) -> Pinned:
    """What a generation with these options is built with; `auto` is decided here, once per generation."""
    async with tenant(pool, org_id) as conn:
        await language.check_language(conn, options.language)
    try:
        model = await models.embedding_model(org_id, options.embedding_model)
    except ModelNotFound as error:
        raise InvalidRequest(error.message, param="embedding_model") from error
    return generations.pin(
        model,
        chunk_size=options.chunk_size,
        chunk_overlap=options.chunk_overlap,
        language=None if options.language == "auto" else options.language,
    )


async def _begin(
    conn: Connection, *, org_id: UUID, before: KnowledgeBase, pinned: Pinned, options: Options
) -> Generation | None:
    """Begin a generation; a language that was detected stays, and a base without documents switches at once."""
    present = await generations.building_or_served(conn, org_id=org_id, knowledge_base_id=before.id)
    if options.language == before.language == "auto" and present:
        pinned = replace(pinned, language=present[-1].language)
    building = await generations.begin(
        conn, org_id=org_id, knowledge_base_id=before.id, generation_id=uuid4(), pinned=pinned
    )
    if building is not None:
        await generations.switch_if_complete(conn, org_id=org_id, knowledge_base_id=before.id)
    return building


def _build_of(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in REBUILDING}


def _check_tier(tier: Tier, *, sync_schedule: str | None, embedding_model: str | None) -> None:
    """Refuse what is asked for and not allowed; what a base has from a better time, it keeps."""
    if sync_schedule is not None:
        tiers.require(tier, lambda limits: limits.schedules, "Schedules", param="sync_schedule")
    if embedding_model not in (None, "auto"):
        tiers.require(
            tier, lambda limits: limits.custom_embedding_models, "Chosen embedding models", param="embedding_model"
        )


def _check_source(base: KnowledgeBase, change: KnowledgeBaseChange, sources: SourcePolicy) -> None:
    if change.source is None:
        return
    asked = sources.admit(change.source, knowledge_base_id=base.id)
    present = (base.source_type, base.source_bucket, base.source_prefix, base.connection_id)
    if (asked.type, asked.bucket, asked.prefix, asked.connection_id) != present:
        raise InvalidRequest(
            "The source of a knowledge base is for life; create another one for another source.", param="source"
        )
