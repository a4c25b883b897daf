-- Uploads whose files go straight to the store, by addresses that were signed for them.

-- `files`: path, size, sha256, metadata and, once there is one, document_id of each. A row whose files all have documents is done; it stays
-- until it expires, so that whoever lost the answer may ask again.
CREATE TABLE kb_uploads (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    knowledge_base_id uuid NOT NULL,
    files jsonb NOT NULL CHECK (jsonb_typeof(files) = 'array'),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, knowledge_base_id) REFERENCES knowledge_bases (org_id, id) ON DELETE CASCADE
);
CREATE INDEX kb_uploads_knowledge_base ON kb_uploads (org_id, knowledge_base_id);
CREATE INDEX kb_uploads_expires ON kb_uploads (expires_at);
CALL protect('kb_uploads');
GRANT SELECT, INSERT, UPDATE (files), DELETE ON kb_uploads TO bonito_runtime;

CREATE POLICY lookup ON kb_uploads FOR SELECT TO bonito_lookup USING (true);
GRANT SELECT (org_id, id, expires_at) ON kb_uploads TO bonito_lookup;

-- The sweeper's work.
CREATE FUNCTION find_expired_uploads(p_limit integer, p_grace interval)
    RETURNS TABLE (org_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
    AS $$ SELECT u.org_id, u.id FROM kb_uploads u WHERE u.expires_at < now() - p_grace ORDER BY u.expires_at LIMIT p_limit $$;

CALL hand_over('find_expired_uploads(integer, interval)', 'bonito_lookup');
