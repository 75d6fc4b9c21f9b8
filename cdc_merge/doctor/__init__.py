"""What a DBA must know before, and after: one module per family of checks, each from facts to findings.

Rules: facts are asked once, as the sidecar's own role, and nothing is changed; judging them is pure; what the role may
not see is `unknown`, never `ok`; every finding that SQL can mend comes with that SQL.
"""
