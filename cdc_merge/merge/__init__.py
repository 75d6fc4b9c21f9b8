"""4: history → merged record, views, frontiers, questions (semantics.md §§2–5). Pure; knows neither time nor storage."""
