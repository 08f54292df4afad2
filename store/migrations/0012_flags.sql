-- What a reader of a text should know of its spans: hidden text, invisible characters taken out, text by OCR.
ALTER TABLE versions ADD COLUMN flags jsonb NOT NULL DEFAULT '[]';
ALTER TABLE chunks ADD COLUMN flags text[] NOT NULL DEFAULT '{}';
