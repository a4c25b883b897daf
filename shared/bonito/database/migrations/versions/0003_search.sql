-- BM25 weights, term counts and the search functions.

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
