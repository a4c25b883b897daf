-- Tiers of organizations, and webhooks that have a source synced.

-- What each tier allows stands in bonito/tenancy/tiers.py. Whoever runs Bonito for himself sells no tiers: the default has no limits.
ALTER TABLE organizations ADD COLUMN tier text NOT NULL DEFAULT 'enterprise' CHECK (tier IN ('free', 'pro', 'enterprise', 'scale'));

-- One address per knowledge base to which its owner's systems tell that the source changed.
CREATE TABLE sync_webhooks (
    org_id uuid NOT NULL,
    id uuid NOT NULL,                                  -- stands in the address
    knowledge_base_id uuid NOT NULL,
    secret_id uuid NOT NULL,                           -- signs what is sent to it
    free_at timestamptz NOT NULL DEFAULT now(),        -- the rate bound: each delivery moves it on by its share of time
    created_at timestamptz NOT NULL DEFAULT now(),
    rotated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, knowledge_base_id) REFERENCES knowledge_bases (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, secret_id) REFERENCES secrets (org_id, id)
);
CREATE UNIQUE INDEX sync_webhooks_base ON sync_webhooks (org_id, knowledge_base_id);
CREATE UNIQUE INDEX sync_webhooks_id ON sync_webhooks (id);
CALL protect('sync_webhooks');
GRANT SELECT, INSERT, UPDATE (secret_id, rotated_at, free_at), DELETE ON sync_webhooks TO bonito_runtime;

-- Deliveries of the last day: one that comes again does nothing.
CREATE TABLE sync_webhook_deliveries (
    org_id uuid NOT NULL,
    webhook_id uuid NOT NULL,
    delivery_id text NOT NULL CHECK (delivery_id <> '' AND length(delivery_id) <= 128),
    received_at timestamptz NOT NULL DEFAULT now(),
    done_at timestamptz,                               -- null while somebody works on it, or was lost over it
    PRIMARY KEY (org_id, webhook_id, delivery_id),
    FOREIGN KEY (org_id, webhook_id) REFERENCES sync_webhooks (org_id, id) ON DELETE CASCADE
);
CREATE INDEX sync_webhook_deliveries_received ON sync_webhook_deliveries (org_id, webhook_id, received_at);
CALL protect('sync_webhook_deliveries');
GRANT SELECT, INSERT, UPDATE (received_at, done_at), DELETE ON sync_webhook_deliveries TO bonito_runtime;

CREATE POLICY lookup ON sync_webhooks FOR SELECT TO bonito_lookup USING (true);
GRANT SELECT (org_id, id, knowledge_base_id) ON sync_webhooks TO bonito_lookup;

-- Whose webhook this is; its secret is read, and its signature checked, in the tenant's transaction.
CREATE FUNCTION find_sync_webhook(p_id uuid)
    RETURNS TABLE (org_id uuid, knowledge_base_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
    AS $$ SELECT w.org_id, w.knowledge_base_id FROM sync_webhooks w WHERE w.id = p_id $$;

CALL hand_over('find_sync_webhook(uuid)', 'bonito_lookup');
