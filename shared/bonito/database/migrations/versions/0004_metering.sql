-- What every request through the gateway used, and every search through /api; by month, because retention drops whole months.

CREATE TABLE gateway_requests (
    org_id uuid NOT NULL,
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    request_id text NOT NULL,
    key_id uuid,
    operation text NOT NULL CHECK (operation IN ('chat.completions', 'completions', 'embeddings', 'search')),
    model_requested text NOT NULL,
    model_used text,
    provider text,
    is_stream boolean NOT NULL,
    status integer NOT NULL,              -- the HTTP status that the caller saw; 499 where he hung up
    error_code text,
    input_tokens integer CHECK (input_tokens >= 0),
    output_tokens integer CHECK (output_tokens >= 0),
    is_estimated boolean NOT NULL DEFAULT false,
    inference_cost_nano_usd bigint CHECK (inference_cost_nano_usd >= 0),  -- null: the price is unknown
    retrieval_cost_nano_usd bigint CHECK (retrieval_cost_nano_usd >= 0),
    latency_ms integer NOT NULL CHECK (latency_ms >= 0),
    first_token_ms integer CHECK (first_token_ms >= 0),
    retrieval_latency_ms integer CHECK (retrieval_latency_ms >= 0),
    retrieval_status text CHECK (retrieval_status IN ('ok', 'empty', 'failed')),
    knowledge_base_ids uuid[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (org_id, created_at, id)
) PARTITION BY RANGE (created_at);
CALL protect('gateway_requests');
GRANT SELECT, INSERT ON gateway_requests TO bonito_runtime;

-- Rows of a month that has no partition yet: maintenance keeps the months ahead of the clock, and brings home what lies here.
CREATE TABLE gateway_requests_default PARTITION OF gateway_requests DEFAULT;
CALL protect('gateway_requests_default');

-- Makes the partitions from this month to `months_ahead` later, and those of rows that lie in the default one, where they are
-- missing; returns how many it made. A month's rows move before its partition is attached, since Postgres attaches none
-- whose rows lie in the default; what is logged at that moment waits, before it is decided which partition it goes to.
CREATE FUNCTION create_gateway_requests_partitions(months_ahead integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    month timestamp;
    months timestamp[];
    first_day timestamptz;
    next_day timestamptz;
    leaf text;
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(4207849486);  -- of two at once, the second finds all made
    months := ARRAY(SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => step)
                      FROM generate_series(0, months_ahead) step
                     UNION
                    SELECT date_trunc('month', created_at AT TIME ZONE 'UTC') FROM public.gateway_requests_default);
    FOREACH month IN ARRAY months LOOP
        first_day := month AT TIME ZONE 'UTC';
        next_day := (month + interval '1 month') AT TIME ZONE 'UTC';
        leaf := 'gateway_requests_' || to_char(month, 'YYYY_MM');
        CONTINUE WHEN to_regclass('public.' || leaf) IS NOT NULL;
        LOCK TABLE ONLY public.gateway_requests IN SHARE ROW EXCLUSIVE MODE;
        LOCK TABLE public.gateway_requests_default IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('CREATE TABLE public.%I (LIKE public.gateway_requests INCLUDING ALL)', leaf);
        EXECUTE format('ALTER TABLE public.%I OWNER TO bonito_owner', leaf);
        EXECUTE format('WITH moved AS (DELETE FROM public.gateway_requests_default WHERE created_at >= %L AND created_at < %L RETURNING *) '
                       'INSERT INTO public.%I SELECT * FROM moved', first_day, next_day, leaf);
        EXECUTE format('ALTER TABLE public.gateway_requests ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', leaf, first_day, next_day);
        CALL public.protect(leaf);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;
REVOKE ALL ON FUNCTION create_gateway_requests_partitions FROM PUBLIC;
SELECT create_gateway_requests_partitions(3);
