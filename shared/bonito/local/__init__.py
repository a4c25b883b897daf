"""Everything in one process for a laptop: embedded Postgres, watched folders, queue worker, gateway and console."""
