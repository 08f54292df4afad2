-- Evaluations that run by themselves. What they found of each measure is told to operators alone, as runs are.
CREATE TABLE eval_schedules (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id   uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name        text NOT NULL,                     -- of its runs too
    golden      text NOT NULL,                     -- a set's name, whose newest version is asked, or name@version
    schedule    text NOT NULL,                     -- cron, by the clock of the time zone
    timezone    text NOT NULL,
    baseline    text,                              -- the run that it is held against
    cutoffs     int[] NOT NULL,
    measures    text[] NOT NULL,                   -- beside the default ones
    max_drop    jsonb NOT NULL,                    -- measure → how far its mean may fall
    next_due_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name)
);

CREATE TABLE eval_results (
    run_id      uuid PRIMARY KEY REFERENCES eval_runs ON DELETE CASCADE,
    tenant_id   uuid NOT NULL,
    schedule_id uuid NOT NULL REFERENCES eval_schedules ON DELETE CASCADE,
    checks      jsonb NOT NULL,                    -- of each: name, value, whether it is an alarm, and why
    at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON eval_results (schedule_id, at);

ALTER TABLE jobs
    DROP CONSTRAINT jobs_kind_check,
    ADD CONSTRAINT jobs_kind_check CHECK (kind IN ('index', 'refresh', 'eval')),
    ADD COLUMN schedule_id uuid REFERENCES eval_schedules ON DELETE CASCADE,
    ADD CONSTRAINT jobs_schedule_id_due_at_key UNIQUE (schedule_id, due_at);

CALL protect('eval_schedules', 'tenant_id = (SELECT scope_tenant())');
CALL protect('eval_results', 'tenant_id = (SELECT scope_tenant())');
GRANT SELECT, INSERT, UPDATE, DELETE ON eval_schedules, eval_results TO citadel_maintenance;
