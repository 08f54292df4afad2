-- What was asked, kept where a tenant chose to or somebody gave feedback, and that feedback.

ALTER TABLE tenants
    ADD COLUMN trace_rate float8 NOT NULL DEFAULT 0 CHECK (trace_rate BETWEEN 0 AND 1),
    ADD COLUMN trace_days int NOT NULL DEFAULT 30 CHECK (trace_days > 0),
    ADD COLUMN feedback_days int NOT NULL DEFAULT 365 CHECK (feedback_days > 0);

-- Feedback names the request that it is about.
CREATE INDEX audit_log_searches ON audit_log (request_id) WHERE action = 'search';

-- A search whose question is kept: one of a sample, or one that somebody gave feedback to. No reader of the application
-- sees any of it: what somebody asked, and said of it, is the operator's.
CREATE TABLE asked (
    request_id uuid PRIMARY KEY,
    tenant_id  uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    subject    text NOT NULL,                      -- who asked
    query      text,                               -- redacted; null: nobody told its words
    at         timestamptz NOT NULL                -- of the search
);
CREATE INDEX ON asked (tenant_id, at);

-- What was answered, as its markers number it. Who erases a document takes the whole search away, for its words and
-- what was said of it may quote the document.
CREATE TABLE asked_passages (
    request_id   uuid NOT NULL REFERENCES asked ON DELETE CASCADE,
    tenant_id    uuid NOT NULL,
    marker       int NOT NULL,
    document_id  uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
    version      int NOT NULL,
    start_offset int NOT NULL,
    end_offset   int NOT NULL,
    used         boolean NOT NULL DEFAULT false,
    PRIMARY KEY (request_id, marker)
);
CREATE INDEX ON asked_passages (document_id);

CREATE TABLE feedback (
    request_id uuid PRIMARY KEY REFERENCES asked ON DELETE CASCADE,
    tenant_id  uuid NOT NULL,
    helpful    boolean,                            -- null: not said
    missing    jsonb NOT NULL,                     -- [{"document": external id} or {"text": words}]
    comment    text,
    at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON feedback (tenant_id);

CALL protect('asked', 'tenant_id = (SELECT scope_tenant())');
CALL protect('asked_passages', 'tenant_id = (SELECT scope_tenant())');
CALL protect('feedback', 'tenant_id = (SELECT scope_tenant())');
GRANT SELECT, INSERT, UPDATE, DELETE ON asked, asked_passages, feedback TO citadel_maintenance;
-- No samples that outlive an erasure.
ALTER TABLE asked ALTER query SET STATISTICS 0;
ALTER TABLE feedback ALTER missing SET STATISTICS 0, ALTER comment SET STATISTICS 0;
