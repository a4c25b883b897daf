-- Knowledge bases: documents, revisions, chunks, and the narrow table that search reads.

CREATE TABLE knowledge_bases (
    org_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id uuid NOT NULL,
    name text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    description text NOT NULL DEFAULT '',
    source_type text NOT NULL CHECK (source_type IN ('s3', 'azure_blob', 'gcs', 'local', 'upload')),
    source_config jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(source_config) = 'object'),
    -- Where notifications of this source come from: the bucket, account/container, or folder; and the part of it that counts.
    source_bucket text NOT NULL,
    source_prefix text NOT NULL DEFAULT '',
    connection_id uuid,
    embedding_model text NOT NULL DEFAULT 'auto',
    chunk_size integer NOT NULL DEFAULT 512 CHECK (chunk_size BETWEEN 16 AND 8192),
    chunk_overlap integer NOT NULL DEFAULT 50 CHECK (chunk_overlap >= 0),
    language text NOT NULL DEFAULT 'auto',
    sync_schedule text,
    sync_timezone text NOT NULL DEFAULT 'UTC',
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'syncing', 'ready', 'error')),
    error_message text,
    served_generation uuid,
    last_synced_at timestamptz,
    listed_at timestamptz,     -- when its source was begun to be listed for the last time
    next_sync_at timestamptz,  -- when sync_schedule is due next; null until the schedule's tick has worked it out
    deleted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, connection_id) REFERENCES connections (org_id, id),
    CHECK (chunk_overlap < chunk_size)
);
CREATE UNIQUE INDEX knowledge_bases_name ON knowledge_bases (org_id, name) WHERE deleted_at IS NULL;
CREATE INDEX knowledge_bases_source ON knowledge_bases (source_type, source_bucket) WHERE deleted_at IS NULL;
CREATE INDEX knowledge_bases_schedule ON knowledge_bases (next_sync_at) WHERE sync_schedule IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX knowledge_bases_listed ON knowledge_bases (listed_at)
    WHERE source_type IN ('s3', 'azure_blob', 'gcs') AND deleted_at IS NULL;
CREATE INDEX knowledge_bases_deleted ON knowledge_bases (deleted_at) WHERE deleted_at IS NOT NULL;

-- Whoever changes a schedule need not know that the next time was worked out from the old one.
CREATE FUNCTION forget_next_sync() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.next_sync_at := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER forget_next_sync BEFORE UPDATE OF sync_schedule, sync_timezone ON knowledge_bases FOR EACH ROW
    WHEN ((OLD.sync_schedule, OLD.sync_timezone) IS DISTINCT FROM (NEW.sync_schedule, NEW.sync_timezone))
    EXECUTE FUNCTION forget_next_sync();
CALL protect('knowledge_bases');
GRANT SELECT, INSERT, UPDATE, DELETE ON knowledge_bases TO bonito_runtime;

-- One build of a knowledge base, with everything pinned that old and new rows must agree on.
CREATE TABLE kb_generations (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    knowledge_base_id uuid NOT NULL,
    status text NOT NULL DEFAULT 'building' CHECK (status IN ('building', 'served', 'retired')),
    embedding_model text NOT NULL,
    embedding_fingerprint text NOT NULL,
    dimensions integer CHECK (dimensions BETWEEN 1 AND 4000),  -- null until the first vector tells
    tokenizer text NOT NULL,
    chunk_size integer NOT NULL,       -- in force: capped by what the embedding model reads
    chunk_overlap integer NOT NULL,
    language text,                     -- a text search configuration; null until the first text tells
    average_length real NOT NULL CHECK (average_length > 0),  -- lexemes per chunk that BM25 is written with
    document_count integer NOT NULL DEFAULT 0 CHECK (document_count >= 0),  -- served, changed in the transaction of each flip
    chunk_count integer NOT NULL DEFAULT 0 CHECK (chunk_count >= 0),
    token_count bigint NOT NULL DEFAULT 0 CHECK (token_count >= 0),
    lexeme_count bigint NOT NULL DEFAULT 0 CHECK (lexeme_count >= 0),
    chunks_written bigint NOT NULL DEFAULT 0,  -- ever, in and out: an index's name tells how many when it was built; the rest is churn
    paused_until timestamptz,          -- the embedding model asked all workers to wait until then
    refused_since timestamptz,         -- it has answered nothing but that since then; null once it answers vectors
    created_at timestamptz NOT NULL DEFAULT now(),
    served_at timestamptz,
    retired_at timestamptz,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, knowledge_base_id) REFERENCES knowledge_bases (org_id, id) ON DELETE CASCADE
);
CREATE INDEX kb_generations_base ON kb_generations (org_id, knowledge_base_id);
CREATE UNIQUE INDEX kb_generations_served ON kb_generations (org_id, knowledge_base_id) WHERE status = 'served';
CREATE UNIQUE INDEX kb_generations_building ON kb_generations (org_id, knowledge_base_id) WHERE status = 'building';
CREATE INDEX kb_generations_retired ON kb_generations (retired_at) WHERE status = 'retired';
CALL protect('kb_generations');
GRANT SELECT, INSERT, UPDATE, DELETE ON kb_generations TO bonito_runtime;

CREATE TABLE kb_syncs (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    knowledge_base_id uuid NOT NULL,
    trigger text NOT NULL DEFAULT 'manual' CHECK (trigger IN ('manual', 'schedule', 'webhook', 'notification', 'reconcile')),
    status text NOT NULL DEFAULT 'listing' CHECK (status IN ('listing', 'processing', 'done', 'failed')),
    error_message text,
    cursor text COLLATE "C" NOT NULL DEFAULT '',       -- the place below the prefix up to which the listing is compared
    is_wanted_again boolean NOT NULL DEFAULT false,    -- somebody asked for a sync behind the cursor's back: list once more
    retry_failed boolean NOT NULL DEFAULT false,
    attempts integer NOT NULL DEFAULT 0,               -- failed tries to list on from the cursor
    unchanged_count bigint NOT NULL DEFAULT 0 CHECK (unchanged_count >= 0),  -- listed, and no work
    sent_count bigint NOT NULL DEFAULT 0 CHECK (sent_count >= 0),  -- documents sent to be looked at, each once
    added_count bigint NOT NULL DEFAULT 0 CHECK (added_count >= 0),  -- those of them that were not there before
    changed_count bigint NOT NULL DEFAULT 0 CHECK (changed_count >= 0),  -- those of them that had another version
    removed_count bigint NOT NULL DEFAULT 0 CHECK (removed_count >= 0),  -- of this sync's documents, when it ended
    failed_count bigint NOT NULL DEFAULT 0 CHECK (failed_count >= 0),  -- of all documents, when it ended
    fence bigint NOT NULL DEFAULT 0,                   -- moved by every worker that takes the listing up
    lease_until timestamptz,                           -- somebody lists until then; later, when the sweeper looks again
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, knowledge_base_id) REFERENCES knowledge_bases (org_id, id) ON DELETE CASCADE
);
CREATE INDEX kb_syncs_base ON kb_syncs (org_id, knowledge_base_id, started_at DESC, id DESC);
CREATE UNIQUE INDEX kb_syncs_running ON kb_syncs (org_id, knowledge_base_id) WHERE status IN ('listing', 'processing');
CREATE INDEX kb_syncs_lease ON kb_syncs (lease_until) WHERE status IN ('listing', 'processing');
CALL protect('kb_syncs');
GRANT SELECT, INSERT, UPDATE, DELETE ON kb_syncs TO bonito_runtime;

CREATE TABLE kb_documents (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    knowledge_base_id uuid NOT NULL,
    file_path text COLLATE "C" NOT NULL CHECK (file_path <> ''),  -- below the source's prefix; in the order that stores list in
    file_name text NOT NULL,
    file_type text,
    file_size bigint CHECK (file_size >= 0),
    file_hash bytea CHECK (length(file_hash) = 32),    -- SHA-256 of the content that is served, or that failed
    source_version text,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'processing', 'ready', 'ready_with_warnings', 'error')),
    error_message text,
    warnings jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(warnings) = 'array'),
    page_count integer CHECK (page_count >= 0),
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    fence bigint NOT NULL DEFAULT 0,                   -- moved by every claim; a worker commits only under the one it was given
    lease_until timestamptz,                           -- in somebody's work until then
    attempts integer NOT NULL DEFAULT 0,               -- failed tries of the present content; back to 0 when it succeeds or changes
    sync_id uuid,                                      -- the last sync that sent it to work
    deleted_at timestamptz,                            -- tombstone
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, knowledge_base_id) REFERENCES knowledge_bases (org_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX kb_documents_path ON kb_documents (org_id, knowledge_base_id, file_path);
-- An upload asks whether its content is there already: in what was read, and in what is waiting to be.
CREATE INDEX kb_documents_content ON kb_documents (org_id, knowledge_base_id, file_hash);
CREATE INDEX kb_documents_in_work ON kb_documents (org_id, knowledge_base_id) WHERE status IN ('pending', 'processing');
CREATE INDEX kb_documents_sync ON kb_documents (org_id, sync_id, status) WHERE sync_id IS NOT NULL;
CREATE INDEX kb_documents_removed ON kb_documents (org_id, sync_id) WHERE sync_id IS NOT NULL AND deleted_at IS NOT NULL;
CREATE INDEX kb_documents_failed ON kb_documents (org_id, knowledge_base_id) WHERE status = 'error' AND deleted_at IS NULL;
CREATE INDEX kb_documents_lease ON kb_documents (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX kb_documents_tombstone ON kb_documents (deleted_at) WHERE deleted_at IS NOT NULL;
CALL protect('kb_documents');
GRANT SELECT, INSERT, UPDATE, DELETE ON kb_documents TO bonito_runtime;

CREATE TABLE kb_revisions (
    org_id uuid NOT NULL,
    id uuid NOT NULL,                                  -- uuid5(document, generation, file_hash)
    knowledge_base_id uuid NOT NULL,
    generation_id uuid NOT NULL,
    document_id uuid NOT NULL,
    file_hash bytea NOT NULL CHECK (length(file_hash) = 32),
    status text NOT NULL DEFAULT 'building' CHECK (status IN ('building', 'served', 'superseded', 'failed')),
    chunk_count integer NOT NULL DEFAULT 0 CHECK (chunk_count >= 0),
    token_count bigint NOT NULL DEFAULT 0 CHECK (token_count >= 0),
    lexeme_count bigint NOT NULL DEFAULT 0 CHECK (lexeme_count >= 0),
    language text NOT NULL DEFAULT 'simple',           -- the text search configuration that its rows are written with
    -- What the document shows while this content of it is served.
    file_type text,
    file_size bigint CHECK (file_size >= 0),
    page_count integer CHECK (page_count >= 0),
    warnings jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(warnings) = 'array'),
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,                              -- when it was superseded or failed; null again once its rows are gone
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, generation_id) REFERENCES kb_generations (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, document_id) REFERENCES kb_documents (org_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX kb_revisions_served ON kb_revisions (org_id, document_id, generation_id) WHERE status = 'served';
CREATE INDEX kb_revisions_generation ON kb_revisions (org_id, generation_id, status);
CREATE INDEX kb_revisions_document ON kb_revisions (org_id, document_id);
CREATE INDEX kb_revisions_ended ON kb_revisions (ended_at) WHERE ended_at IS NOT NULL;
CALL protect('kb_revisions');
GRANT SELECT, INSERT, UPDATE, DELETE ON kb_revisions TO bonito_runtime;

-- Chunks of a building revision that wait for their vectors, one row per message; gone when they are stored.
CREATE TABLE kb_batches (
    org_id uuid NOT NULL,
    revision_id uuid NOT NULL,
    first_index integer NOT NULL CHECK (first_index >= 0),
    last_index integer NOT NULL CHECK (last_index >= first_index),
    attempts integer NOT NULL DEFAULT 0,               -- calls of the model that failed, or whose worker was lost
    lease_until timestamptz,                           -- in a model call until then: nobody pays for it twice
    PRIMARY KEY (org_id, revision_id, first_index),
    FOREIGN KEY (org_id, revision_id) REFERENCES kb_revisions (org_id, id) ON DELETE CASCADE
);
CALL protect('kb_batches');
GRANT SELECT, INSERT, UPDATE, DELETE ON kb_batches TO bonito_runtime;

CREATE TABLE kb_chunks (
    org_id uuid NOT NULL,
    id uuid NOT NULL,                                  -- uuid5(document, revision, index)
    knowledge_base_id uuid NOT NULL,
    document_id uuid NOT NULL,
    revision_id uuid NOT NULL,
    chunk_index integer NOT NULL CHECK (chunk_index >= 0),
    content text NOT NULL,
    token_count integer NOT NULL CHECK (token_count > 0),
    source_page integer CHECK (source_page >= 1),
    source_section text,                               -- headings joined by ' > '
    char_start integer NOT NULL CHECK (char_start >= 0),
    char_end integer NOT NULL CHECK (char_end > char_start),
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    PRIMARY KEY (org_id, id)
) PARTITION BY HASH (org_id);
CREATE UNIQUE INDEX kb_chunks_position ON kb_chunks (org_id, revision_id, chunk_index);
CALL protect('kb_chunks');
GRANT SELECT, INSERT, UPDATE, DELETE ON kb_chunks TO bonito_runtime;

-- Narrow on purpose: search reads this, and content only for the few rows that win. terms, lexical and lexeme_count come
-- from lexical_row (0003): `INSERT … SELECT …, l.terms, l.lexical, l.lexeme_count FROM …, lexical_row(generation_id,
-- to_tsvector(…), average_length) l`.
CREATE TABLE kb_index (
    org_id uuid NOT NULL,
    chunk_id uuid NOT NULL,
    knowledge_base_id uuid NOT NULL,
    generation_id uuid NOT NULL,
    revision_id uuid NOT NULL,
    document_id uuid NOT NULL,
    dimensions integer NOT NULL,
    embedding vector NOT NULL,
    terms integer[] NOT NULL,                          -- the generation's scope (negative), and each posting list that the chunk stands in
    lexical sparsevec NOT NULL,                        -- BM25's weight of each term
    lexeme_count integer NOT NULL CHECK (lexeme_count >= 0),
    metadata jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (org_id, chunk_id),
    CHECK (vector_dims(embedding) = dimensions)
) PARTITION BY HASH (org_id);
CREATE INDEX kb_index_revision ON kb_index (org_id, revision_id);
CREATE INDEX kb_index_generation ON kb_index (org_id, generation_id);
CREATE INDEX kb_index_document ON kb_index (org_id, document_id);
-- A short pending list: searches read it from end to end.
CREATE INDEX kb_index_terms ON kb_index USING gin (terms) WITH (gin_pending_list_limit = 1024);
CALL protect('kb_index');
GRANT SELECT, INSERT, UPDATE, DELETE ON kb_index TO bonito_runtime;

DO $$
DECLARE
    parent text;
    leaf text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['kb_chunks', 'kb_index'] LOOP
        FOR remainder IN 0..31 LOOP
            leaf := format('%s_p%s', parent, lpad(remainder::text, 2, '0'));
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS 32, REMAINDER %s)', leaf, parent, remainder);
            CALL protect(leaf);
        END LOOP;
    END LOOP;
    -- Rows of up to 1,000 dimensions stay in one piece: comparing 2,000 vectors takes 4 ms instead of 8, weighing 5,000 chunks 10 instead of 20.
    FOR remainder IN 0..31 LOOP
        EXECUTE format('ALTER TABLE kb_index_p%s SET (toast_tuple_target = 8160)', lpad(remainder::text, 2, '0'));
    END LOOP;
END $$;

-- How many served chunks of a generation stand in a posting list (a positive value of kb_index.terms); the IDF side of BM25.
CREATE TABLE kb_terms (
    org_id uuid NOT NULL,
    generation_id uuid NOT NULL,
    term integer NOT NULL,
    document_frequency integer NOT NULL,               -- no check: a flip's upsert proposes differences, which may be negative
    PRIMARY KEY (org_id, generation_id, term),
    FOREIGN KEY (org_id, generation_id) REFERENCES kb_generations (org_id, id) ON DELETE CASCADE
);
CALL protect('kb_terms');
GRANT SELECT, INSERT, UPDATE, DELETE ON kb_terms TO bonito_runtime;

-- Lookups across organizations: ids and what is needed to act on them, no content. What follows happens in the tenant's transaction.
CREATE POLICY lookup ON knowledge_bases FOR SELECT TO bonito_lookup USING (true);
CREATE POLICY lookup ON kb_generations FOR SELECT TO bonito_lookup USING (true);
CREATE POLICY lookup ON kb_syncs FOR SELECT TO bonito_lookup USING (true);
CREATE POLICY lookup ON kb_documents FOR SELECT TO bonito_lookup USING (true);
CREATE POLICY lookup ON kb_revisions FOR SELECT TO bonito_lookup USING (true);
GRANT SELECT (org_id, id, source_type, source_bucket, source_prefix, connection_id, sync_schedule, sync_timezone, next_sync_at, listed_at, deleted_at)
    ON knowledge_bases TO bonito_lookup;
GRANT SELECT (org_id, id, status, retired_at) ON kb_generations TO bonito_lookup;
GRANT SELECT (org_id, id, status, lease_until) ON kb_syncs TO bonito_lookup;
GRANT SELECT (org_id, id, lease_until, deleted_at) ON kb_documents TO bonito_lookup;
GRANT SELECT (org_id, id, ended_at) ON kb_revisions TO bonito_lookup;

-- Whom a notification of a store concerns.
CREATE FUNCTION find_knowledge_bases(p_provider text, p_bucket text)
    RETURNS TABLE (org_id uuid, knowledge_base_id uuid, source_prefix text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
    AS $$ SELECT b.org_id, b.id, b.source_prefix FROM knowledge_bases b
           WHERE b.source_type = p_provider AND b.source_bucket = p_bucket AND b.deleted_at IS NULL
             AND (p_provider NOT IN ('s3', 'azure_blob', 'gcs')
                  OR EXISTS (SELECT FROM connections c
                              WHERE c.org_id = b.org_id AND c.id = b.connection_id AND p_bucket = ANY (c.buckets))) $$;

-- Sources that are compared with their documents every few minutes, and watched where that is possible.
CREATE FUNCTION find_sources(p_provider text)
    RETURNS TABLE (org_id uuid, knowledge_base_id uuid, source_bucket text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
    AS $$ SELECT b.org_id, b.id, b.source_bucket FROM knowledge_bases b
           WHERE b.source_type = p_provider AND b.deleted_at IS NULL $$;

-- Schedules that are due, or whose next time is not known yet.
CREATE FUNCTION find_due_schedules()
    RETURNS TABLE (org_id uuid, knowledge_base_id uuid, sync_schedule text, sync_timezone text, next_sync_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
    AS $$ SELECT b.org_id, b.id, b.sync_schedule, b.sync_timezone, b.next_sync_at FROM knowledge_bases b
           WHERE b.sync_schedule IS NOT NULL AND b.deleted_at IS NULL AND (b.next_sync_at IS NULL OR b.next_sync_at <= now()) $$;

-- Sources in a cloud that were not listed for p_age, the longest forgotten first: a notification may have been lost.
CREATE FUNCTION find_unlisted(p_age interval, p_limit integer)
    RETURNS TABLE (org_id uuid, knowledge_base_id uuid, listed_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
    AS $$ SELECT b.org_id, b.id, b.listed_at FROM knowledge_bases b
           WHERE b.source_type IN ('s3', 'azure_blob', 'gcs') AND b.deleted_at IS NULL
             AND (b.listed_at IS NULL OR b.listed_at < now() - p_age)
           ORDER BY b.listed_at NULLS FIRST LIMIT p_limit $$;

-- The sweeper's next work: leases that ran out, and what is no longer served for longer than p_grace (tombstones: p_keep).
CREATE FUNCTION find_sweeping(p_limit integer, p_grace interval, p_keep interval)
    RETURNS TABLE (kind text, org_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
    AS $$
        (SELECT 'document', d.org_id, d.id FROM kb_documents d WHERE d.lease_until < now() ORDER BY d.lease_until LIMIT p_limit)
        UNION ALL
        (SELECT 'sync', s.org_id, s.id FROM kb_syncs s
          WHERE s.status IN ('listing', 'processing') AND s.lease_until < now() ORDER BY s.lease_until LIMIT p_limit)
        UNION ALL
        (SELECT 'revision', r.org_id, r.id FROM kb_revisions r WHERE r.ended_at < now() - p_grace ORDER BY r.ended_at LIMIT p_limit)
        UNION ALL
        (SELECT 'generation', g.org_id, g.id FROM kb_generations g
          WHERE g.status = 'retired' AND g.retired_at < now() - p_grace ORDER BY g.retired_at LIMIT p_limit)
        UNION ALL
        (SELECT 'knowledge_base', b.org_id, b.id FROM knowledge_bases b WHERE b.deleted_at IS NOT NULL ORDER BY b.deleted_at LIMIT p_limit)
        UNION ALL
        (SELECT 'tombstone', d.org_id, d.id FROM kb_documents d WHERE d.deleted_at < now() - p_keep ORDER BY d.deleted_at LIMIT p_limit)
    $$;

CALL hand_over('find_knowledge_bases(text, text)', 'bonito_lookup');
CALL hand_over('find_sources(text)', 'bonito_lookup');
CALL hand_over('find_due_schedules()', 'bonito_lookup');
CALL hand_over('find_unlisted(interval, integer)', 'bonito_lookup');
CALL hand_over('find_sweeping(integer, interval, interval)', 'bonito_lookup');
