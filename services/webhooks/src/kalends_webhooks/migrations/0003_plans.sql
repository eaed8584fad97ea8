-- These functions look up few rows by key, in tables whose statistics are wrong most of the time: made when they were
-- empty, they have the plan of the first calls read the whole table at each later one. So the plan is said.
ALTER FUNCTION lock_feeds SET enable_seqscan = off;
ALTER FUNCTION emit SET enable_seqscan = off;
ALTER FUNCTION emit SET enable_hashjoin = off;
ALTER FUNCTION emit SET enable_mergejoin = off;
ALTER FUNCTION finish SET enable_seqscan = off;
ALTER FUNCTION finish SET enable_hashjoin = off;
ALTER FUNCTION finish SET enable_mergejoin = off;
ALTER FUNCTION claim SET enable_hashjoin = off;
ALTER FUNCTION claim SET enable_mergejoin = off;
