"""The one state of Bonito: Postgres with pgvector."""
