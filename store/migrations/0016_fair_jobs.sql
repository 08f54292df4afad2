-- Tenants take turns at the dispatcher, and ended jobs go when a tenant says so.

-- What waits, by tenant: of 100,000 open jobs of one, a look at what is next of each reads a few pages.
CREATE INDEX jobs_by_tenant ON jobs (kind, tenant_id, created_at)
    WHERE state NOT IN ('done', 'failed', 'quarantined', 'cancelled');
DROP INDEX jobs_waiting;
-- What was handed to the broker and is not at its end: some hundreds, however many wait.
CREATE INDEX jobs_sent ON jobs (kind, tenant_id)
    WHERE dispatched_at IS NOT NULL AND state NOT IN ('done', 'failed', 'quarantined', 'cancelled');

-- For how many days jobs are kept after their end; null: all of them.
ALTER TABLE tenants ADD keep_job_days int CHECK (keep_job_days >= 0);
CREATE INDEX jobs_ended ON jobs (tenant_id, updated_at)
    WHERE state IN ('done', 'failed', 'quarantined', 'cancelled');
