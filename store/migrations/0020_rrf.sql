-- The constant of reciprocal rank fusion is the tenant's, as its method and weight are: `citadel tune` may change it.
ALTER TABLE tenants ADD COLUMN rrf_k int NOT NULL DEFAULT 60 CHECK (rrf_k BETWEEN 1 AND 1000);
