"""Models that run in this process: embeddings by all-MiniLM-L6-v2, answers quoted from their sources."""
