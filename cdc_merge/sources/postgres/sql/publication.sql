-- One publication: what it publishes.
SELECT p.oid::int AS oid, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot
FROM pg_publication p
WHERE p.pubname = $1
