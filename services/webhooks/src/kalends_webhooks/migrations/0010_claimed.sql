-- kalends: no-transaction
-- What is in the hands of workers: a few rows, however many wait. It is what a webhook's own bound is judged by, and where
-- what a worker held is found that has died. It is said so that only these two take it: a plan for `claim = ...` made while
-- nothing was claimed would find a row among all of those that are.
CREATE INDEX CONCURRENTLY IF NOT EXISTS queue_claimed ON queue (tenant_id, webhook_id, due_at) WHERE coalesce(claim, '') <> '';
