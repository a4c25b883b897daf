"""The role that owns everything, for what is done with its rights."""

from __future__ import annotations

from typing import LiteralString

# A login is a member of it and makes nothing of its own: what it creates belongs to the owner like all the rest.
ACT_AS_OWNER: LiteralString = "SET ROLE bonito_owner"
