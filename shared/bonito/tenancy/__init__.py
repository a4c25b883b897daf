"""Organizations, people, tokens, keys, permissions, secrets and the audit log."""
