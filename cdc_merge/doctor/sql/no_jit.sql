-- Catalogs without statistics look costly to the planner: compiling these questions takes longer than answering them.
SET jit = off
