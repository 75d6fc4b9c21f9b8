"""Decisions: what people answer, as a change of the history. Reserved for approvals, bulk and audit (issue 15). Pure."""
