-- Roles and rights before any table; repeatable. Roles belong to the whole cluster, so another database may have made them already.
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['bonito_owner', 'bonito_runtime', 'bonito_lookup', 'bonito_search'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOBYPASSRLS', name);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END LOOP;
    -- The owner hands functions over to the two definer roles, and inherits nothing of theirs.
    IF NOT pg_has_role('bonito_owner', 'bonito_lookup', 'SET') THEN
        GRANT bonito_lookup TO bonito_owner WITH INHERIT FALSE, SET TRUE;
    END IF;
    IF NOT pg_has_role('bonito_owner', 'bonito_search', 'SET') THEN
        GRANT bonito_search TO bonito_owner WITH INHERIT FALSE, SET TRUE;
    END IF;
    -- Whoever migrates acts as the owner; a superuser may already.
    IF NOT pg_has_role(current_user, 'bonito_owner', 'SET') THEN
        EXECUTE format('GRANT bonito_owner TO %I WITH INHERIT TRUE, SET TRUE', current_user);
    END IF;
END $$;

CREATE EXTENSION IF NOT EXISTS vector;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO bonito_owner;
-- Lent to a definer role while a function is handed over. Once granted, the owner is itself a possible grantor, so not again.
DO $$
BEGIN
    IF NOT has_schema_privilege('bonito_owner', 'public', 'CREATE WITH GRANT OPTION') THEN
        GRANT CREATE ON SCHEMA public TO bonito_owner WITH GRANT OPTION;
    END IF;
END $$;
GRANT USAGE ON SCHEMA public TO bonito_runtime, bonito_lookup, bonito_search;
