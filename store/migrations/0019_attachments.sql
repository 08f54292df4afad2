-- Attachments are documents of their own, below the one that they came with.

-- A child is always under its parent's label set: the foreign key brings every change of it, and refuses any other.
-- The index is what it refers to.
CREATE UNIQUE INDEX documents_labelled ON documents (id, label_set_id);
ALTER TABLE documents ADD parent_id uuid;
ALTER TABLE documents ADD CONSTRAINT documents_parent FOREIGN KEY (parent_id, label_set_id)
    REFERENCES documents (id, label_set_id) ON UPDATE CASCADE;
CREATE INDEX documents_children ON documents (parent_id) WHERE parent_id IS NOT NULL;
