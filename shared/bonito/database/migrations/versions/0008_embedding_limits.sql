-- Limits of a provider's embedding models, shared by all workers; ingestion's own rows among the requests.

-- Per model of the provider, as the vendors count; null is no limit of ours.
ALTER TABLE providers
    ADD COLUMN requests_per_minute integer CHECK (requests_per_minute > 0),
    ADD COLUMN tokens_per_minute integer CHECK (tokens_per_minute > 0);

-- When the calls of a model that were admitted so far will have been evenly spread (GCRA's theoretical arrival time), by
-- requests and by tokens; and until when the provider itself asked for a pause.
CREATE TABLE embedding_turns (
    org_id uuid NOT NULL,
    provider_id uuid NOT NULL,
    model text NOT NULL,
    requests_at timestamptz NOT NULL DEFAULT '-infinity',
    tokens_at timestamptz NOT NULL DEFAULT '-infinity',
    paused_until timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (org_id, provider_id, model),
    FOREIGN KEY (org_id, provider_id) REFERENCES providers (org_id, id) ON DELETE CASCADE
);
CALL protect('embedding_turns');
GRANT SELECT, INSERT, UPDATE, DELETE ON embedding_turns TO bonito_runtime;

-- Admit one call of so many tokens, or say when to come back. Five seconds' worth may go at once; the rate is that of 65
-- seconds for a minute's limit, so that in no minute more than the limit begins. A call above five seconds' worth goes when
-- all before it is spread. One that has to wait no longer than p_patience has its turn kept: it waits and calls. A null
-- p_patience only counts: nothing is refused, and what is counted holds up those who have patience.
CREATE FUNCTION take_embedding_turn(
    p_org_id uuid, p_provider_id uuid, p_model text, p_requests_per_minute integer, p_tokens_per_minute integer, p_tokens bigint,
    p_patience interval, OUT is_taken boolean, OUT wait_s double precision) LANGUAGE plpgsql AS $$
DECLARE
    burst CONSTANT interval := '5 s';
    request_takes interval := coalesce(interval '65 s' / p_requests_per_minute, '0 s');
    tokens_take interval := coalesce(interval '65 s' * (p_tokens::double precision / p_tokens_per_minute), '0 s');
    turn embedding_turns;
    moment timestamptz;
    begins timestamptz;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);  -- a turn that a crash forgets does no harm, and the row is hot
    INSERT INTO embedding_turns (org_id, provider_id, model) VALUES (p_org_id, p_provider_id, p_model) ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT turn FROM embedding_turns t
     WHERE t.org_id = p_org_id AND t.provider_id = p_provider_id AND t.model = p_model FOR UPDATE;
    moment := clock_timestamp();  -- the row may have been waited for
    begins := greatest(moment, turn.paused_until,
                       CASE WHEN p_requests_per_minute IS NOT NULL
                            THEN least(turn.requests_at, turn.requests_at + request_takes - burst) END,
                       CASE WHEN p_tokens_per_minute IS NOT NULL
                            THEN least(turn.tokens_at, turn.tokens_at + tokens_take - burst) END);
    is_taken := p_patience IS NULL OR begins <= moment + p_patience;
    wait_s := CASE WHEN p_patience IS NULL THEN 0 ELSE extract(epoch FROM begins - moment) END;
    IF is_taken THEN
        moment := CASE WHEN p_patience IS NULL THEN moment ELSE greatest(moment, turn.paused_until) END;
        UPDATE embedding_turns t
           SET requests_at = greatest(t.requests_at, moment) + request_takes, tokens_at = greatest(t.tokens_at, moment) + tokens_take
         WHERE t.org_id = p_org_id AND t.provider_id = p_provider_id AND t.model = p_model;
    END IF;
END $$;

-- What ingestion pays for stands beside what requests pay for.
ALTER TABLE gateway_requests DROP CONSTRAINT gateway_requests_operation_check;
ALTER TABLE gateway_requests ADD CONSTRAINT gateway_requests_operation_check
    CHECK (operation IN ('chat.completions', 'completions', 'embeddings', 'search', 'embeddings.ingest'));
