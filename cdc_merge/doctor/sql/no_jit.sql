-- Catalogs without statistics look costly to the planner: compiling these queries takes longer than running them.
SET jit = off
