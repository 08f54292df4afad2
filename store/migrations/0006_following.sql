-- What changed since a position is found by the transactions that it did not see.
CREATE INDEX ON change_log (tenant_id, xid);
