-- All of the queue's indexes begin with the account, so a plan kept from an empty queue may find a row by any of them, and
-- did: ending ten deliveries read 5,005 rows of a queue of 20,000. The queue is empty one moment and long the next, so these
-- two are planned anew at each call, by how long it is then; they work in batches, so it is a plan a batch.
ALTER FUNCTION claim SET plan_cache_mode = force_custom_plan;
ALTER FUNCTION finish SET plan_cache_mode = force_custom_plan;
