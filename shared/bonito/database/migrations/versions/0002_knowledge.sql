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
    deleted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, connection_id) REFERENCES connections (org_id, id),
    CHECK (chunk_overlap < chunk_size)
);
CREATE UNIQUE INDEX knowledge_bases_name ON knowledge_bases (org_id, name) WHERE deleted_at IS NULL;
CREATE INDEX knowledge_bases_source ON knowledge_bases (source_type, source_bucket) WHERE deleted_at IS NULL;
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
    chunks_written bigint NOT NULL DEFAULT 0,  -- ever, in and out: churn since an index was built is the difference
    indexed_at_written bigint,         -- chunks_written when its own HNSW index was built; null without one
    created_at timestamptz NOT NULL DEFAULT now(),
    served_at timestamptz,
    retired_at timestamptz,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, knowledge_base_id) REFERENCES knowledge_bases (org_id, id) ON DELETE CASCADE
);
CREATE INDEX kb_generations_base ON kb_generations (org_id, knowledge_base_id);
CREATE UNIQUE INDEX kb_generations_served ON kb_generations (org_id, knowledge_base_id) WHERE status = 'served';
CREATE UNIQUE INDEX kb_generations_building ON kb_generations (org_id, knowledge_base_id) WHERE status = 'building';
CALL protect('kb_generations');
GRANT SELECT, INSERT, UPDATE, DELETE ON kb_generations TO bonito_runtime;

CREATE TABLE kb_syncs (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    knowledge_base_id uuid NOT NULL,
    status text NOT NULL DEFAULT 'listing' CHECK (status IN ('listing', 'processing', 'done', 'failed')),
    error_message text,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, knowledge_base_id) REFERENCES knowledge_bases (org_id, id) ON DELETE CASCADE
);
CREATE INDEX kb_syncs_base ON kb_syncs (org_id, knowledge_base_id, started_at DESC);
CALL protect('kb_syncs');
GRANT SELECT, INSERT, UPDATE, DELETE ON kb_syncs TO bonito_runtime;

CREATE TABLE kb_documents (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    knowledge_base_id uuid NOT NULL,
    file_path text NOT NULL CHECK (file_path <> ''),   -- below the source's prefix
    file_name text NOT NULL,
    file_type text,
    file_size bigint CHECK (file_size >= 0),
    file_hash bytea CHECK (length(file_hash) = 32),    -- SHA-256 of the content that is served, or that failed
    source_version text,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'processing', 'ready', 'ready_with_warnings', 'error')),
    error_message text,
    warnings jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(warnings) = 'array'),
    page_count integer CHECK (page_count >= 0),
    chunk_count integer NOT NULL DEFAULT 0 CHECK (chunk_count >= 0),
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
CREATE INDEX kb_documents_sync ON kb_documents (org_id, sync_id) WHERE sync_id IS NOT NULL;
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
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,                              -- when it was superseded or failed
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, generation_id) REFERENCES kb_generations (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, document_id) REFERENCES kb_documents (org_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX kb_revisions_served ON kb_revisions (org_id, document_id, generation_id) WHERE status = 'served';
CREATE INDEX kb_revisions_generation ON kb_revisions (org_id, generation_id, status);
CREATE INDEX kb_revisions_document ON kb_revisions (org_id, document_id);
CREATE INDEX kb_revisions_ended ON kb_revisions (ended_at) WHERE status IN ('superseded', 'failed');
CALL protect('kb_revisions');
GRANT SELECT, INSERT, UPDATE, DELETE ON kb_revisions TO bonito_runtime;

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

-- Narrow on purpose: search reads this, and content only for the few rows that win.
CREATE TABLE kb_index (
    org_id uuid NOT NULL,
    chunk_id uuid NOT NULL,
    knowledge_base_id uuid NOT NULL,
    generation_id uuid NOT NULL,
    revision_id uuid NOT NULL,
    document_id uuid NOT NULL,
    dimensions integer NOT NULL,
    embedding vector NOT NULL,
    tsv tsvector NOT NULL,
    lexical sparsevec NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (org_id, chunk_id),
    CHECK (vector_dims(embedding) = dimensions)
) PARTITION BY HASH (org_id);
CREATE INDEX kb_index_revision ON kb_index (org_id, revision_id);
CREATE INDEX kb_index_generation ON kb_index (org_id, generation_id);
CREATE INDEX kb_index_document ON kb_index (org_id, document_id);
CREATE INDEX kb_index_tsv ON kb_index USING gin (tsv);
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
END $$;

-- How many served chunks of a generation hold a term; the IDF side of BM25.
CREATE TABLE kb_terms (
    org_id uuid NOT NULL,
    generation_id uuid NOT NULL,
    term text NOT NULL,
    document_frequency integer NOT NULL CHECK (document_frequency >= 0),
    PRIMARY KEY (org_id, generation_id, term),
    FOREIGN KEY (org_id, generation_id) REFERENCES kb_generations (org_id, id) ON DELETE CASCADE
);
CALL protect('kb_terms');
GRANT SELECT, INSERT, UPDATE, DELETE ON kb_terms TO bonito_runtime;
