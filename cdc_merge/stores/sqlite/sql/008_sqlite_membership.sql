-- What a publication sent of which tables when a position was reached: so that a change of it while nobody looked is no
-- silent gap.
ALTER TABLE source ADD COLUMN membership TEXT NOT NULL DEFAULT '';
