-- 0011_repair_plans.sql: a page of kiln_unpublished reads jobs_open in its order, from `after_id` on. While statistics are
-- behind (Redis is emptied just when 100,000 jobs came in within a minute) the planner takes "open" for a handful of rows,
-- reads and sorts all of them for each page (measured: 170 to 240 ms of a page of 500, 66 s of a full pass), and the queue
-- starves meanwhile.
do $$
declare
    s text;
begin
    foreach s in array array['enable_seqscan = off', 'enable_bitmapscan = off', 'enable_sort = off', 'enable_hashjoin = off',
                             'enable_mergejoin = off', 'jit = off'] loop
        execute format('alter function kiln_unpublished(timestamptz, timestamptz, uuid, int) set %s', s);
    end loop;
end $$;
