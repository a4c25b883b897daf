"""Who may do what: four roles, each with everything that the one below it may; what is not listed is denied."""

from __future__ import annotations

from enum import StrEnum

from bonito.errors import PermissionDenied


class Role(StrEnum):
    """What a member is in an organization; written from the least to the most."""

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"
    OWNER = "owner"

    def covers(self, other: Role) -> bool:
        """Whether this role may do all that the other may."""
        return RANK[self] >= RANK[other]


RANK = {role: rank for rank, role in enumerate(Role)}


class Permission(StrEnum):
    """One thing that a route of /api needs; every route declares exactly one."""

    ORGANIZATION_READ = "organization:read"
    MEMBERS_READ = "members:read"
    MODELS_READ = "models:read"
    TOKENS_OWN = "tokens:own"
    KNOWLEDGE_BASES_READ = "knowledge_bases:read"
    KNOWLEDGE_BASES_SEARCH = "knowledge_bases:search"

    KNOWLEDGE_BASES_WRITE = "knowledge_bases:write"
    KNOWLEDGE_BASES_SYNC = "knowledge_bases:sync"
    KNOWLEDGE_BASES_EXPORT = "knowledge_bases:export"
    DOCUMENTS_WRITE = "documents:write"
    KEYS_READ = "keys:read"
    PROVIDERS_READ = "providers:read"
    CONNECTIONS_READ = "connections:read"
    LOGS_READ = "logs:read"

    KNOWLEDGE_BASES_DELETE = "knowledge_bases:delete"
    KEYS_MANAGE = "keys:manage"
    PROVIDERS_MANAGE = "providers:manage"
    CONNECTIONS_MANAGE = "connections:manage"
    INVITES_MANAGE = "invites:manage"
    MEMBERS_MANAGE = "members:manage"
    AUDIT_READ = "audit:read"

    ORGANIZATION_MANAGE = "organization:manage"
    OWNERS_MANAGE = "owners:manage"


VIEWER = frozenset(
    {
        Permission.ORGANIZATION_READ,
        Permission.MEMBERS_READ,
        Permission.MODELS_READ,
        Permission.TOKENS_OWN,
        Permission.KNOWLEDGE_BASES_READ,
        Permission.KNOWLEDGE_BASES_SEARCH,
    }
)
MEMBER = VIEWER | {
    Permission.KNOWLEDGE_BASES_WRITE,
    Permission.KNOWLEDGE_BASES_SYNC,
    Permission.KNOWLEDGE_BASES_EXPORT,
    Permission.DOCUMENTS_WRITE,
    Permission.KEYS_READ,
    Permission.PROVIDERS_READ,
    Permission.CONNECTIONS_READ,
    Permission.LOGS_READ,
}
ADMIN = MEMBER | {
    Permission.KNOWLEDGE_BASES_DELETE,
    Permission.KEYS_MANAGE,
    Permission.PROVIDERS_MANAGE,
    Permission.CONNECTIONS_MANAGE,
    Permission.INVITES_MANAGE,
    Permission.MEMBERS_MANAGE,
    Permission.AUDIT_READ,
}
OWNER = ADMIN | {Permission.ORGANIZATION_MANAGE, Permission.OWNERS_MANAGE}

ALLOWED = {Role.VIEWER: VIEWER, Role.MEMBER: MEMBER, Role.ADMIN: ADMIN, Role.OWNER: OWNER}


def is_allowed(role: Role, permission: Permission) -> bool:
    """Whether the role has the permission; one that no role lists is denied to all."""
    return permission in ALLOWED[role]


def require(role: Role, permission: Permission) -> None:
    """Refuse a role that lacks the permission.

    Raises:
        PermissionDenied: names the least role that would do.
    """
    if is_allowed(role, permission):
        return
    least = next((candidate for candidate in Role if is_allowed(candidate, permission)), None)
    needed = f"the role {least}" if least else "a role that does not exist yet"
    raise PermissionDenied(f"This needs {needed} or higher ({permission}); the token acts as {role}.")
