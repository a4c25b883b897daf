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

-- Rows of a month that has no partition yet; maintenance keeps the months ahead of the clock, so it stays empty.
CREATE TABLE gateway_requests_default PARTITION OF gateway_requests DEFAULT;
CALL protect('gateway_requests_default');

-- Makes the partitions from this month to `months_ahead` later, where they are missing; returns how many it made.
CREATE FUNCTION create_gateway_requests_partitions(months_ahead integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    first_day timestamptz;
    leaf text;
    made integer := 0;
BEGIN
    FOR step IN 0..months_ahead LOOP
        first_day := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => step)) AT TIME ZONE 'UTC';
        leaf := 'gateway_requests_' || to_char(first_day AT TIME ZONE 'UTC', 'YYYY_MM');
        IF to_regclass('public.' || leaf) IS NULL THEN
            EXECUTE format('CREATE TABLE public.%I PARTITION OF public.gateway_requests FOR VALUES FROM (%L) TO (%L)', leaf, first_day,
                           (first_day AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC');
            CALL public.protect(leaf);
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$;
REVOKE ALL ON FUNCTION create_gateway_requests_partitions FROM PUBLIC;
SELECT create_gateway_requests_partitions(3);
