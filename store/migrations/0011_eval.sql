-- Golden sets and the runs over them. A set is never changed: other judgements are its next version. No reader of the
-- application sees any of it: what is judged, and what somebody was answered, is the operator's.
CREATE TABLE golden_sets (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id  uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name       text NOT NULL,
    version    int NOT NULL,
    digest     text NOT NULL,                      -- sha256 of the questions and judgements
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name, version),
    UNIQUE (tenant_id, name, digest)
);

CREATE TABLE golden_queries (
    golden_id uuid NOT NULL REFERENCES golden_sets ON DELETE CASCADE,
    tenant_id uuid NOT NULL,
    ordinal   int NOT NULL,
    line      jsonb NOT NULL,                      -- as the native file has it; an erasure takes its document out
    PRIMARY KEY (golden_id, ordinal)
);

CREATE TABLE eval_runs (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id   uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name        text NOT NULL,
    golden_id   uuid NOT NULL REFERENCES golden_sets ON DELETE CASCADE,
    searched    uuid NOT NULL,                     -- the tenant whose documents were asked for
    config      jsonb NOT NULL,                    -- everything that the answers follow from
    key         text NOT NULL,                     -- sha256 of it: an interrupted run of the same key goes on
    summary     jsonb,                             -- null until every question is answered
    -- question → measure → value, as it was measured then: no erasure and no other index changes an old run's figures
    measured    jsonb,
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE INDEX ON eval_runs (tenant_id, name, finished_at);

CREATE TABLE eval_answers (
    run_id    uuid NOT NULL REFERENCES eval_runs ON DELETE CASCADE,
    tenant_id uuid NOT NULL,
    query_id  text NOT NULL,
    ms        real,                                -- of the whole search; null where its legs were kept ones
    degraded  text[] NOT NULL,
    tokens    int NOT NULL,                        -- of the passages within the largest cutoff
    PRIMARY KEY (run_id, query_id)
);

-- What was answered. Follows its document out of the database, so that an erasure reaches it.
CREATE TABLE eval_passages (
    run_id       uuid NOT NULL,
    tenant_id    uuid NOT NULL,
    query_id     text NOT NULL,
    rank         int NOT NULL,
    document_id  uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
    version      int NOT NULL,
    start_offset int NOT NULL,
    end_offset   int NOT NULL,
    page         int,
    score        float8 NOT NULL,
    PRIMARY KEY (run_id, query_id, rank),
    FOREIGN KEY (run_id, query_id) REFERENCES eval_answers ON DELETE CASCADE
);
CREATE INDEX ON eval_passages (document_id);

-- Where each relevant document stood in each stage of the search; null: not among its candidates.
CREATE TABLE eval_stages (
    run_id      uuid NOT NULL,
    tenant_id   uuid NOT NULL,
    query_id    text NOT NULL,
    document_id uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
    dense       int,
    lexical     int,
    fused       int,
    answer      int,
    PRIMARY KEY (run_id, query_id, document_id),
    FOREIGN KEY (run_id, query_id) REFERENCES eval_answers ON DELETE CASCADE
);
CREATE INDEX ON eval_stages (document_id);

CALL protect('golden_sets', 'tenant_id = (SELECT scope_tenant())');
CALL protect('golden_queries', 'tenant_id = (SELECT scope_tenant())');
CALL protect('eval_runs', 'tenant_id = (SELECT scope_tenant())');
CALL protect('eval_answers', 'tenant_id = (SELECT scope_tenant())');
CALL protect('eval_passages', 'tenant_id = (SELECT scope_tenant())');
CALL protect('eval_stages', 'tenant_id = (SELECT scope_tenant())');
GRANT SELECT, INSERT, UPDATE, DELETE ON golden_sets, golden_queries, eval_runs, eval_answers, eval_passages, eval_stages
    TO citadel_maintenance;
ALTER TABLE golden_queries ALTER line SET STATISTICS 0; -- quotes: no samples that outlive an erasure
