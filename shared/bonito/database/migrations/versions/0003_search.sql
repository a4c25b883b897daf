-- BM25 weights, term counts and the search functions.

-- Loads pgvector's library: a function below carries its settings, and only a superuser may store a setting that is not known yet.
DO $$ BEGIN PERFORM '[0]'::vector; END $$;

-- Loads pgvector into this session: only then may others than superusers name its settings in a function.
SELECT '[1]'::vector;

-- A term is a number from here on: a stable hash of the lexeme into 1 … 2^28, within sparsevec's 10^9 dimensions. Postgres' own
-- hashes are not promised stable across versions. Two lexemes that collide count as one term, everywhere alike.
CREATE FUNCTION term_dimension(p_lexeme text) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN 1 + ('x' || substr(encode(sha256(replace(p_lexeme, '\', '\\')::bytea), 'hex'), 1, 7))::bit(28)::integer;

-- The key that all rows of a generation share in the GIN index over kb_index.terms, which holds many generations: negative, where
-- posting lists are positive. Two generations that collide cost each other time, nothing else.
CREATE FUNCTION generation_scope(p_generation_id uuid) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN -1 - ('x' || right(p_generation_id::text, 8))::bit(31)::integer;

-- The document's side of BM25 (k1 = 0.9, b = 0.4; Robertson and Zaragoza 2009, Anserini's defaults for passages), as kb_index keeps it.
--   terms: the generation's scope and one posting list per term, 4 * dimension + level; the level is how strong the term is here
--          (0 weak to 3 strong), so that search can begin with the strongest occurrences of a common word.
--   lexical: dimension -> tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average)), below k1 + 1 = 1.9.
--   lexeme_count: the chunk's length.
-- A sparsevec holds 16,000 elements: of more lexemes, the shortest are kept.
CREATE FUNCTION lexical_row(p_generation_id uuid, p_tsv tsvector, p_average_length real,
                            OUT terms integer[], OUT lexical sparsevec, OUT lexeme_count integer)
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    norm double precision;
    weights text;
BEGIN
    SELECT coalesce(sum(cardinality(positions)), 0) INTO lexeme_count FROM unnest(p_tsv);
    norm := 0.9 * (0.6 + 0.4 * lexeme_count / p_average_length);
    SELECT array_agg(4 * dimension + CASE WHEN weight < 1.2 THEN 0 WHEN weight < 1.45 THEN 1 WHEN weight < 1.65 THEN 2 ELSE 3 END),
           string_agg(dimension || ':' || weight, ',')
      INTO terms, weights
      FROM (SELECT dimension, (1.9::double precision * sum(tf) / (sum(tf) + norm))::real AS weight
              FROM (SELECT term_dimension(lexeme) AS dimension, cardinality(positions) AS tf FROM unnest(p_tsv) LIMIT 16000) t
             GROUP BY dimension ORDER BY dimension) w;
    terms := generation_scope(p_generation_id) || terms;
    lexical := ('{' || coalesce(weights, '') || '}/1000000000')::sparsevec;
END $$;

-- Up to so many served chunks all are compared, which takes 4 ms for 384 dimensions; above, maintenance builds an HNSW index.
CREATE FUNCTION exact_search_limit() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 2000;

-- What search reads, it reads as this role; the functions below are the only way in, and check the organization themselves. Under a policy
-- that compares, Postgres would not use the GIN index: its operators are not leakproof (R6).
CREATE POLICY search ON knowledge_bases FOR SELECT TO bonito_search USING (true);
CREATE POLICY search ON kb_generations FOR SELECT TO bonito_search USING (true);
CREATE POLICY search ON kb_documents FOR SELECT TO bonito_search USING (true);
CREATE POLICY search ON kb_revisions FOR SELECT TO bonito_search USING (true);
CREATE POLICY search ON kb_chunks FOR SELECT TO bonito_search USING (true);
CREATE POLICY search ON kb_index FOR SELECT TO bonito_search USING (true);
CREATE POLICY search ON kb_terms FOR SELECT TO bonito_search USING (true);
GRANT SELECT ON knowledge_bases, kb_generations, kb_documents, kb_revisions, kb_chunks, kb_index, kb_terms TO bonito_search;

-- A chunk's relevance, absolute in 0 … 1. vector: cosine, 0 where it is negative. keyword: BM25 over the most that any text could reach with
-- this query, 1.9 * sum of IDF. hybrid: half and half (a convex combination with theoretical bounds; Bruch, Gai, Ingber 2023).
CREATE FUNCTION relevance(p_mode text, p_embedding vector, p_lexical sparsevec, p_query_embedding vector, p_query_lexical sparsevec,
                          p_bound double precision) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE p_mode WHEN 'vector' THEN 1.0 WHEN 'hybrid' THEN 0.5 ELSE 0.0 END
           * CASE WHEN p_mode = 'keyword' THEN 0.0
                  ELSE greatest(0.0, least(1.0, 1.0 - coalesce(nullif(p_embedding <=> p_query_embedding, 'NaN'), 1.0))) END  -- NaN: overflow
         + CASE p_mode WHEN 'keyword' THEN 1.0 WHEN 'hybrid' THEN 0.5 ELSE 0.0 END
           * CASE WHEN p_mode = 'vector' OR p_bound = 0.0 THEN 0.0 ELSE least(1.0, -(p_lexical <#> p_query_lexical) / p_bound) END;

-- The query's side of BM25 in a generation.
--   weights: dimension -> IDF = ln(1 + (N - df + 0.5) / (df + 0.5)).
--   bound: 1.9 * sum of IDF; 0 where the query holds nothing but stop words. A term that the generation lacks counts here as well: the
--          score says how much of the query a chunk covers.
--   lists: the query's posting lists, those that can add most to a score first.
--   begin_with: so many of them, with 8,000 chunks together at most, or the first one. Reading a chunk's weights takes some 2 us; with a
--          query of common words only, the strongest occurrences of each among 100,000 chunks held 98 % of the ten best (all of them
--          where words are rare), in 10 ms instead of 90.
CREATE FUNCTION query_terms(p_org_id uuid, p_generation_id uuid, p_language text, p_chunk_count integer, p_query text,
                            OUT weights sparsevec, OUT bound double precision, OUT lists integer[], OUT begin_with integer)
    LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    terms_of_query integer[] := ARRAY(
        SELECT DISTINCT term_dimension(lexeme) FROM unnest(to_tsvector(p_language::regconfig, p_query)) ORDER BY 1 LIMIT 16000);
BEGIN
    WITH found AS MATERIALIZED (
        SELECT q.dimension, t.term, t.document_frequency, sum(t.document_frequency) OVER (PARTITION BY q.dimension) AS total
          FROM unnest(terms_of_query) AS q (dimension)
          LEFT JOIN kb_terms t ON t.org_id = p_org_id AND t.generation_id = p_generation_id
                              AND t.term BETWEEN 4 * q.dimension AND 4 * q.dimension + 3),
    weighed AS MATERIALIZED (
        SELECT f.dimension, f.term, f.document_frequency, ln(1 + (greatest(p_chunk_count - n.df, 0) + 0.5) / (n.df + 0.5)) AS idf
          FROM found f, LATERAL (SELECT coalesce(f.total, 0)::double precision AS df) n),
    idf AS (SELECT DISTINCT w.dimension, w.idf FROM weighed w),
    ranked AS (
        SELECT w.term, row_number() OVER strongest AS place, sum(w.document_frequency) OVER strongest AS chunks
          FROM weighed w WHERE w.term IS NOT NULL
        WINDOW strongest AS (ORDER BY w.idf * (ARRAY[1.2, 1.45, 1.65, 1.9])[1 + w.term % 4] DESC, w.term ROWS UNBOUNDED PRECEDING))
    SELECT ('{' || coalesce((SELECT string_agg(d.dimension || ':' || d.idf::real, ',' ORDER BY d.dimension) FROM idf d), '')
            || '}/1000000000')::sparsevec,
           1.9 * coalesce((SELECT sum(d.idf) FROM idf d), 0),
           coalesce(array_agg(r.term ORDER BY r.place), '{}'),
           count(*) FILTER (WHERE r.place = 1 OR r.chunks <= 8000)
      INTO weights, bound, lists, begin_with
      FROM ranked r;
END $$;

-- The served chunks that stand in one of the posting lists, by BM25. The sort comes before the look at the revision, so that a superseded
-- row costs one look and pushes nobody out. p_revisions narrows the search where a filter does; null is all. At its usual price Postgres
-- would read a btree over the whole generation as well, only to confirm what the scope says: 43 ms.
CREATE FUNCTION keyword_candidates(p_org_id uuid, p_knowledge_base_id uuid, p_generation_id uuid, p_weights sparsevec, p_lists integer[],
                                   p_revisions uuid[], p_limit integer) RETURNS uuid[]
    LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET cpu_index_tuple_cost = 1 AS $$
BEGIN
    RETURN ARRAY(
        SELECT c.chunk_id
          FROM (SELECT i.chunk_id, i.revision_id, i.lexical <#> p_weights AS distance
                  FROM kb_index i
                 WHERE i.org_id = p_org_id AND i.knowledge_base_id = p_knowledge_base_id AND i.generation_id = p_generation_id
                   AND i.terms && p_lists AND i.terms @> ARRAY[generation_scope(p_generation_id)]
                   AND (p_revisions IS NULL OR i.revision_id = ANY(p_revisions))
                 ORDER BY distance OFFSET 0) c
          JOIN kb_revisions r ON r.org_id = p_org_id AND r.id = c.revision_id AND r.status = 'served'
         ORDER BY c.distance LIMIT p_limit);
END $$;

-- The served chunks nearest to a vector, by the generation's own HNSW index (knowledge/indexes.py builds it). The expression and the
-- three literals are what makes Postgres take it; without an index everything is compared. The more chunks, the more of the graph is searched:
-- a question beside the topic is about equally far from all, and only a long list then holds its ten nearest.
CREATE FUNCTION vector_candidates(p_org_id uuid, p_knowledge_base_id uuid, p_generation_id uuid, p_dimensions integer, p_embedding vector,
                                  p_revisions uuid[], p_chunk_count integer, p_limit integer) RETURNS uuid[]
    LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off
    SET hnsw.iterative_scan = relaxed_order SET hnsw.ef_search = 200 AS $$
DECLARE
    candidates uuid[];
BEGIN
    PERFORM set_config('hnsw.ef_search', least(1000, greatest(200, p_chunk_count / 125))::text, true);
    EXECUTE format($sql$
        SELECT array_agg(n.chunk_id)
          FROM (SELECT i.chunk_id
                  FROM kb_index i JOIN kb_revisions r ON r.org_id = i.org_id AND r.id = i.revision_id AND r.status = 'served'
                 WHERE i.org_id = %1$L AND i.knowledge_base_id = %2$L AND i.generation_id = %3$L
                   AND ($2 IS NULL OR i.revision_id = ANY($2))
                 ORDER BY l2_normalize(i.embedding)::halfvec(%4$s) <=> l2_normalize($1)::halfvec(%4$s) LIMIT %5$s) n
        $sql$, p_org_id, p_knowledge_base_id, p_generation_id, p_dimensions, p_limit)
       INTO candidates USING p_embedding, p_revisions;
    RETURN coalesce(candidates, '{}');
END $$;

CREATE FUNCTION served_revisions(p_org_id uuid, p_generation_id uuid) RETURNS uuid[] LANGUAGE sql STABLE
    RETURN ARRAY(SELECT r.id FROM kb_revisions r WHERE r.org_id = p_org_id AND r.generation_id = p_generation_id AND r.status = 'served');

-- The best of some revisions' chunks, each one compared: small bases, narrow filters.
CREATE FUNCTION compared(p_org_id uuid, p_revisions uuid[], p_mode text, p_embedding vector, p_weights sparsevec, p_bound double precision,
                         p_limit integer) RETURNS uuid[]
    LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
BEGIN
    RETURN ARRAY(
        SELECT i.chunk_id FROM kb_index i
         WHERE i.org_id = p_org_id AND i.revision_id = ANY(p_revisions)
         ORDER BY relevance(p_mode, i.embedding, i.lexical, p_embedding, p_weights, p_bound) DESC, i.chunk_id
         LIMIT p_limit);
END $$;

-- The chunks of a knowledge base that answer a query best, with all that a citation needs; one snapshot, one round trip.
--   p_generation_id: the one whose embedding model p_embedding was made with. Where another is served by now, or none, no_data_found is
--                    raised: look again.
--   p_mode: hybrid, vector or keyword; p_embedding is null in keyword mode.
--   p_filter: what the document's metadata must contain.
--   p_limit: 100 at most.
-- Never fewer rows than p_limit or than there are, before p_min_score; keyword mode leaves out chunks without any of the words.
CREATE FUNCTION search_knowledge_base(p_org_id uuid, p_knowledge_base_id uuid, p_generation_id uuid, p_mode text, p_query text,
                                      p_embedding vector, p_filter jsonb, p_min_score double precision, p_limit integer)
    RETURNS TABLE (chunk_id uuid, score double precision, content text, document_id uuid, document_name text, document_path text,
                   page integer, section text, metadata jsonb)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_custom_plan
    SET jit = off SET max_parallel_workers_per_gather = 0 SET work_mem = '16MB' AS $$
DECLARE
    generation kb_generations;
    weights sparsevec;
    bound double precision := 0;
    lists integer[] := '{}';
    begin_with integer := 0;
    size bigint;
    revisions uuid[];
    candidates uuid[] := '{}';
    nearest uuid[];
BEGIN
    IF p_org_id IS DISTINCT FROM current_org_id() THEN
        RAISE EXCEPTION 'the organization asked for is not the one that is set' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT g.* INTO generation
      FROM knowledge_bases b JOIN kb_generations g ON g.org_id = b.org_id AND g.id = b.served_generation
     WHERE b.org_id = p_org_id AND b.id = p_knowledge_base_id AND b.deleted_at IS NULL AND g.id = p_generation_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the generation is not served' USING ERRCODE = 'no_data_found';
    END IF;

    size := generation.chunk_count;
    IF p_filter <> '{}' THEN
        SELECT coalesce(array_agg(r.id), '{}'), coalesce(sum(r.chunk_count), 0) INTO revisions, size
          FROM kb_revisions r JOIN kb_documents d ON d.org_id = r.org_id AND d.id = r.document_id
         WHERE r.org_id = p_org_id AND r.generation_id = p_generation_id AND r.status = 'served' AND d.metadata @> p_filter;
    END IF;
    IF p_mode <> 'vector' THEN
        SELECT t.weights, t.bound, t.lists, t.begin_with INTO weights, bound, lists, begin_with
          FROM query_terms(p_org_id, p_generation_id, coalesce(generation.language, 'simple'), generation.chunk_count, p_query) t;
    END IF;

    IF size <= (CASE WHEN revisions IS NULL THEN exact_search_limit() ELSE 4 * exact_search_limit() END) THEN
        revisions := coalesce(revisions, served_revisions(p_org_id, p_generation_id));
        candidates := compared(p_org_id, revisions, p_mode, p_embedding, weights, bound, p_limit);
    ELSE
        IF p_mode <> 'vector' THEN
            candidates := keyword_candidates(p_org_id, p_knowledge_base_id, p_generation_id, weights, lists[:begin_with], revisions, 100);
            IF cardinality(candidates) < p_limit AND begin_with < cardinality(lists) THEN
                candidates := keyword_candidates(p_org_id, p_knowledge_base_id, p_generation_id, weights, lists, revisions, 100);
            END IF;
        END IF;
        IF p_mode <> 'keyword' THEN
            nearest := vector_candidates(p_org_id, p_knowledge_base_id, p_generation_id, generation.dimensions, p_embedding, revisions,
                                         generation.chunk_count, 100);
            IF cardinality(nearest) < least(p_limit, size) THEN
                revisions := coalesce(revisions, served_revisions(p_org_id, p_generation_id));
                nearest := compared(p_org_id, revisions, 'vector', p_embedding, weights, bound, 100);
            END IF;
            candidates := candidates || nearest;
        END IF;
    END IF;

    RETURN QUERY
        WITH best AS MATERIALIZED (
            SELECT i.chunk_id, i.document_id, r.score
              FROM kb_index i,
                   LATERAL (SELECT relevance(p_mode, i.embedding, i.lexical, p_embedding, weights, bound) AS score OFFSET 0) r
             WHERE i.org_id = p_org_id AND i.chunk_id = ANY(candidates)
               AND r.score >= p_min_score AND (p_mode <> 'keyword' OR r.score > 0)
             ORDER BY r.score DESC, i.chunk_id LIMIT p_limit)
        SELECT best.chunk_id, best.score, c.content, d.id, d.file_name, d.file_path, c.source_page, c.source_section, d.metadata
          FROM best
          JOIN kb_chunks c ON c.org_id = p_org_id AND c.id = best.chunk_id
          JOIN kb_documents d ON d.org_id = p_org_id AND d.id = best.document_id
         ORDER BY best.score DESC, best.chunk_id;
END $$;

-- The parts run with the rights of search_knowledge_base, and nobody else calls them.
DO $$
DECLARE part text;
BEGIN
    FOREACH part IN ARRAY ARRAY['query_terms', 'keyword_candidates', 'vector_candidates', 'served_revisions', 'compared'] LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %I FROM PUBLIC', part);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %I TO bonito_search', part);
    END LOOP;
END $$;
CALL hand_over('search_knowledge_base(uuid, uuid, uuid, text, text, vector, jsonb, double precision, integer)', 'bonito_search');
