-- Organizations, people, tokens, keys, secrets, providers, connections, audit.

-- Code starts on a newer schema only if it is not older than compatible_from: expand first, contract a release later.
CREATE TABLE schema_compatibility (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    compatible_from integer NOT NULL
);
INSERT INTO schema_compatibility (compatible_from) VALUES (1);

-- The organization of this transaction; null, and so no row at all, where none is set.
CREATE FUNCTION current_org_id() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT nullif(current_setting('app.org_id', true), '')::uuid $$;

-- Row-level security for a table or a partition: the runtime sees its organization, the owner everything (a backfill under FORCE would
-- otherwise touch nothing). Called for every table with org_id and again for every partition, because a parent's policies do not cover its leaves.
CREATE PROCEDURE protect(target regclass, org_column name DEFAULT 'org_id') LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
    EXECUTE format(
        'CREATE POLICY tenant ON %s TO bonito_runtime USING (%2$I = (SELECT nullif(current_setting(''app.org_id'', true), '''')::uuid)) '
        'WITH CHECK (%2$I = (SELECT nullif(current_setting(''app.org_id'', true), '''')::uuid))', target, org_column);
    EXECUTE format('CREATE POLICY owner ON %s TO bonito_owner USING (true) WITH CHECK (true)', target);
END $$;
REVOKE ALL ON PROCEDURE protect FROM PUBLIC;

-- Roles in their order, from the least.
CREATE FUNCTION role_rank(role text) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT array_position(ARRAY['viewer', 'member', 'admin', 'owner'], role) $$;

CREATE TABLE organizations (
    id uuid PRIMARY KEY,
    name text NOT NULL CHECK (name <> '' AND length(name) <= 255),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX organizations_name ON organizations (lower(name));
CALL protect('organizations', 'id');
GRANT SELECT ON organizations TO bonito_runtime;

-- People belong to the deployment and may be members of several organizations; the runtime sees those of its own.
CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL CHECK (email = lower(email) AND email LIKE '%_@_%' AND length(email) <= 320),
    name text NOT NULL DEFAULT '' CHECK (length(name) <= 255),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_email ON users (email);
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE users FORCE ROW LEVEL SECURITY;

CREATE TABLE memberships (
    org_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role text NOT NULL CHECK (role IN ('viewer', 'member', 'admin', 'owner')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, user_id)
);
CALL protect('memberships');
GRANT SELECT, UPDATE (role), DELETE ON memberships TO bonito_runtime;

CREATE POLICY owner ON users TO bonito_owner USING (true) WITH CHECK (true);
CREATE POLICY colleagues ON users FOR SELECT TO bonito_runtime
    USING (EXISTS (SELECT FROM memberships m WHERE m.org_id = (SELECT current_org_id()) AND m.user_id = users.id));
GRANT SELECT ON users TO bonito_runtime;

CREATE TABLE invites (
    org_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id uuid NOT NULL,
    email text NOT NULL CHECK (email = lower(email) AND email LIKE '%_@_%' AND length(email) <= 320),
    role text NOT NULL CHECK (role IN ('viewer', 'member', 'admin', 'owner')),
    token_hash bytea NOT NULL CHECK (length(token_hash) = 32),
    invited_by uuid,
    expires_at timestamptz NOT NULL,
    accepted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX invites_token_hash ON invites (token_hash);
CALL protect('invites');
GRANT SELECT, INSERT, DELETE ON invites TO bonito_runtime;

CREATE TABLE personal_tokens (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    name text NOT NULL CHECK (name <> '' AND length(name) <= 255),
    token_hash bytea NOT NULL CHECK (length(token_hash) = 32),
    token_prefix text NOT NULL,
    -- The most that the token may do; whoever presents it acts with the lesser of this and the member's role.
    role text NOT NULL CHECK (role IN ('viewer', 'member', 'admin', 'owner')),
    expires_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, user_id) REFERENCES memberships (org_id, user_id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX personal_tokens_token_hash ON personal_tokens (token_hash);
CREATE INDEX personal_tokens_user ON personal_tokens (org_id, user_id);
CALL protect('personal_tokens');
GRANT SELECT, INSERT, UPDATE (revoked_at, expires_at) ON personal_tokens TO bonito_runtime;

-- Turns an invite into a membership and its first token, all or nothing; of two acceptances at once the row's lock lets one win. The
-- organization and the email come from the caller and must be those of the row, which alone decides on the role.
CREATE FUNCTION accept_invite(p_invite_hash bytea, p_org_id uuid, p_email text, p_name text, p_user_id uuid, p_token_id uuid,
                              p_token_hash bytea, p_token_prefix text)
    RETURNS TABLE (outcome text, user_id uuid, role text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    invite invites;
    person uuid;
BEGIN
    SELECT * INTO invite FROM invites i WHERE i.token_hash = p_invite_hash AND i.org_id = p_org_id FOR UPDATE;
    IF NOT FOUND OR invite.email <> p_email THEN
        RETURN QUERY SELECT 'unknown', NULL::uuid, NULL::text;
        RETURN;
    ELSIF invite.accepted_at IS NOT NULL THEN
        RETURN QUERY SELECT 'used', NULL::uuid, NULL::text;
        RETURN;
    ELSIF invite.expires_at <= now() THEN
        RETURN QUERY SELECT 'expired', NULL::uuid, NULL::text;
        RETURN;
    END IF;
    INSERT INTO users (id, email, name) VALUES (p_user_id, invite.email, p_name) ON CONFLICT (email) DO NOTHING;
    SELECT u.id INTO person FROM users u WHERE u.email = invite.email;
    INSERT INTO memberships (org_id, user_id, role) VALUES (invite.org_id, person, invite.role) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'member', NULL::uuid, NULL::text;
        RETURN;
    END IF;
    INSERT INTO personal_tokens (org_id, id, user_id, name, token_hash, token_prefix, role)
    VALUES (invite.org_id, p_token_id, person, 'first token', p_token_hash, p_token_prefix, invite.role);
    UPDATE invites SET accepted_at = now() WHERE org_id = invite.org_id AND id = invite.id;
    RETURN QUERY SELECT 'accepted', person, invite.role;
END $$;
REVOKE ALL ON FUNCTION accept_invite FROM PUBLIC;
GRANT EXECUTE ON FUNCTION accept_invite TO bonito_runtime;

CREATE TABLE gateway_keys (
    org_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id uuid NOT NULL,
    name text NOT NULL CHECK (name <> '' AND length(name) <= 255),
    key_hash bytea NOT NULL CHECK (length(key_hash) = 32),
    key_prefix text NOT NULL,
    -- What the key may read; null is every knowledge base of the organization.
    knowledge_base_ids uuid[],
    created_by uuid,
    replaced_by uuid,  -- the key that a rotation made; this one lives on until expires_at
    expires_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX gateway_keys_key_hash ON gateway_keys (key_hash);
CREATE UNIQUE INDEX gateway_keys_name ON gateway_keys (org_id, lower(name)) WHERE revoked_at IS NULL AND replaced_by IS NULL;
CALL protect('gateway_keys');
GRANT SELECT, INSERT, UPDATE (name, revoked_at, expires_at, replaced_by) ON gateway_keys TO bonito_runtime;

-- Sealed with AES-256-GCM; organization, purpose and id are the associated data, so that a row moved elsewhere does not open.
CREATE TABLE secrets (
    org_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id uuid NOT NULL,
    purpose text NOT NULL CHECK (purpose <> ''),
    key_id text NOT NULL,
    nonce bytea NOT NULL CHECK (length(nonce) = 12),
    ciphertext bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CALL protect('secrets');
GRANT SELECT, INSERT, UPDATE (key_id, nonce, ciphertext), DELETE ON secrets TO bonito_runtime;

-- Access to a customer's cloud account; `credential` holds references, never a secret.
CREATE TABLE connections (
    org_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id uuid NOT NULL,
    name text NOT NULL CHECK (name <> '' AND length(name) <= 255),
    cloud text NOT NULL CHECK (cloud IN ('aws', 'azure', 'gcp')),
    credential jsonb NOT NULL CHECK (jsonb_typeof(credential) = 'object'),
    buckets text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX connections_name ON connections (org_id, lower(name));
CALL protect('connections');
GRANT SELECT, INSERT, UPDATE, DELETE ON connections TO bonito_runtime;

CREATE TABLE providers (
    org_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id uuid NOT NULL,
    name text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    type text NOT NULL CHECK (type IN ('openai', 'azure_openai', 'bedrock', 'vertex', 'anthropic', 'openai_compatible', 'litellm', 'local')),
    base_url text,
    region text,
    vendor text CHECK (vendor IS NULL OR type = 'litellm'),  -- LiteLLM's name of it
    secret_id uuid,
    connection_id uuid,
    models text[],  -- null is all that the provider lists
    listed_models text[],  -- as the provider listed them when it was last asked; null as long as it never answered
    verified_at timestamptz,
    verification_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, secret_id) REFERENCES secrets (org_id, id),
    FOREIGN KEY (org_id, connection_id) REFERENCES connections (org_id, id)
);
CREATE UNIQUE INDEX providers_name ON providers (org_id, name);
CALL protect('providers');
GRANT SELECT, INSERT, UPDATE, DELETE ON providers TO bonito_runtime;

-- One chain per organization: each row's hash covers its fields and the hash before it. Rows come only through append_audit.
CREATE TABLE audit_log (
    org_id uuid NOT NULL REFERENCES organizations (id),
    sequence bigint NOT NULL CHECK (sequence > 0),
    at timestamptz NOT NULL,
    actor text NOT NULL,          -- user:<id>, token:<id>, key:<id> or system
    action text NOT NULL,         -- knowledge_base.create, key.revoke, …
    target text NOT NULL,
    details jsonb NOT NULL,
    request_id text NOT NULL,
    previous_hash bytea NOT NULL CHECK (length(previous_hash) = 32),
    hash bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (org_id, sequence)
);
CALL protect('audit_log');
GRANT SELECT ON audit_log TO bonito_runtime;

-- jsonb's text is canonical (keys sorted, no duplicates); lengths before each field keep two fields from passing as one.
CREATE FUNCTION audit_hash(p_previous bytea, p_org_id uuid, p_sequence bigint, p_at timestamptz, p_actor text, p_action text, p_target text,
                           p_details jsonb, p_request_id text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(p_previous || convert_to(string_agg(length(field) || ':' || field, ',' ORDER BY position), 'UTF8'))
      FROM unnest(ARRAY[p_org_id::text, p_sequence::text, (extract(epoch FROM p_at) * 1000000)::bigint::text,
                        p_actor, p_action, p_target, p_details::text, p_request_id]) WITH ORDINALITY AS f (field, position)
$$;

-- The end of each chain, kept apart from its rows: a log whose last rows were cut off no longer reaches it.
CREATE TABLE audit_heads (
    org_id uuid PRIMARY KEY REFERENCES organizations (id),
    sequence bigint NOT NULL CHECK (sequence >= 0),
    hash bytea NOT NULL CHECK (length(hash) = 32)
);
CALL protect('audit_heads');
GRANT SELECT ON audit_heads TO bonito_runtime;

CREATE FUNCTION append_audit(p_org_id uuid, p_actor text, p_action text, p_target text, p_details jsonb, p_request_id text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    head audit_heads;
    entry audit_log;
BEGIN
    IF p_org_id IS DISTINCT FROM current_org_id() THEN
        RAISE EXCEPTION 'the organization asked for is not the one that is set' USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- Whoever appends holds the head, so that the chain cannot fork.
    INSERT INTO audit_heads VALUES (p_org_id, 0, sha256(convert_to(p_org_id::text, 'UTF8'))) ON CONFLICT DO NOTHING;
    SELECT * INTO head FROM audit_heads WHERE org_id = p_org_id FOR UPDATE;
    entry := (p_org_id, head.sequence + 1, clock_timestamp(), p_actor, p_action, p_target, p_details, p_request_id, head.hash, head.hash);
    entry.hash := audit_hash(entry.previous_hash, entry.org_id, entry.sequence, entry.at, entry.actor, entry.action, entry.target,
                             entry.details, entry.request_id);
    INSERT INTO audit_log SELECT entry.*;
    UPDATE audit_heads SET sequence = entry.sequence, hash = entry.hash WHERE org_id = p_org_id;
    RETURN entry.sequence;
END $$;
REVOKE ALL ON FUNCTION append_audit FROM PUBLIC;
GRANT EXECUTE ON FUNCTION append_audit TO bonito_runtime;

-- Lookups before an organization is known: a closed list, owned by a role that reads just these tables, each answering as little as possible.
CREATE POLICY lookup ON gateway_keys FOR SELECT TO bonito_lookup USING (true);
CREATE POLICY lookup ON personal_tokens FOR SELECT TO bonito_lookup USING (true);
CREATE POLICY lookup ON memberships FOR SELECT TO bonito_lookup USING (true);
CREATE POLICY lookup ON connections FOR SELECT TO bonito_lookup USING (true);
GRANT SELECT ON gateway_keys, personal_tokens, memberships TO bonito_lookup;
GRANT SELECT (org_id, id, buckets) ON connections TO bonito_lookup;

CREATE FUNCTION find_gateway_key(p_key_hash bytea)
    RETURNS TABLE (org_id uuid, key_id uuid, expires_at timestamptz, revoked_at timestamptz, knowledge_base_ids uuid[])
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
    AS $$ SELECT k.org_id, k.id, k.expires_at, k.revoked_at, k.knowledge_base_ids FROM gateway_keys k WHERE k.key_hash = p_key_hash $$;

CREATE FUNCTION find_personal_token(p_token_hash bytea)
    RETURNS TABLE (org_id uuid, token_id uuid, user_id uuid, role text, expires_at timestamptz, revoked_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
    AS $$ SELECT t.org_id, t.id, t.user_id, CASE WHEN role_rank(t.role) < role_rank(m.role) THEN t.role ELSE m.role END,
                 t.expires_at, t.revoked_at
            FROM personal_tokens t JOIN memberships m ON m.org_id = t.org_id AND m.user_id = t.user_id
           WHERE t.token_hash = p_token_hash $$;

-- Hands the named functions to a definer role and lets the runtime call them, nobody else.
CREATE PROCEDURE hand_over(target regprocedure, new_owner name) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', target);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO bonito_runtime', target);
    EXECUTE format('GRANT CREATE ON SCHEMA public TO %I', new_owner);
    EXECUTE format('ALTER FUNCTION %s OWNER TO %I', target, new_owner);
    EXECUTE format('REVOKE CREATE ON SCHEMA public FROM %I', new_owner);
END $$;
REVOKE ALL ON PROCEDURE hand_over FROM PUBLIC;

CALL hand_over('find_gateway_key(bytea)', 'bonito_lookup');
CALL hand_over('find_personal_token(bytea)', 'bonito_lookup');

GRANT SELECT ON schema_compatibility, alembic_version TO bonito_runtime;
