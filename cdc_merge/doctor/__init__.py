"""The doctor: preflight and monitoring checks for DBAs; one module per family of checks, each from facts to findings.

Rules: facts are queried once, as the sidecar's own role, read-only; checks are pure functions of facts; what the role
may not see is `unknown`, never `ok`; every finding that SQL can fix comes with that SQL.
"""
