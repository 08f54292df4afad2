-- Jobs that are cancelled, tries that failed for want of something other than the document, and paused sources.

ALTER TABLE jobs ADD COLUMN faults int NOT NULL DEFAULT 0;
ALTER TABLE jobs DROP CONSTRAINT jobs_state_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_state_check CHECK (state IN
    ('accepted', 'parsing', 'embedding', 'indexing', 'running', 'done', 'failed', 'quarantined', 'cancelled'));
DROP INDEX jobs_open;
CREATE INDEX jobs_open ON jobs (next_try_at) WHERE state NOT IN ('done', 'failed', 'quarantined', 'cancelled');
CREATE INDEX jobs_held ON jobs (lease_until) WHERE lease_until IS NOT NULL;

ALTER TABLE sources ADD COLUMN paused_at timestamptz;
