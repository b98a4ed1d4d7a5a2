-- 0007_plans.sql: how the batched functions are planned. Each of their statements joins arrays of at most some hundred
-- rows to tables by primary or unique key, whatever the tables hold; nested loops over those indexes are right for an
-- empty database and for a hundred million jobs. Left to itself the planner reads whole tables and partial indexes as
-- long as its statistics call them small (measured: 16 ms of a batch of 500 for an index it took for empty, 5 ms for a
-- hash of all idempotency keys), and a plan made then stays in the session. So: one plan a session, made of index look-ups.
-- A join takes all its keys from one side (attempts by j.id and j.attempt, not by u.id and j.attempt: the planner then tries
-- the second key alone). WHERE clauses say "not finished" as `captured_mc is null` (a CHECK makes it the same), lest a partial index be
-- taken for a short list.
do $$
declare
    f regprocedure;
    s text;
begin
    for f in select p.oid::regprocedure from pg_proc p
             where p.pronamespace = current_schema()::regnamespace and p.proname in ('kiln_accept', 'kiln_grant',
                   'kiln_finish', 'kiln_start', 'kiln_checkpoint', 'kiln_settle', 'kiln_handback', 'kiln_lost',
                   'kiln_cancel', 'kiln_expire', 'kiln_job_json')
    loop
        foreach s in array array['plan_cache_mode = force_generic_plan', 'enable_seqscan = off', 'enable_hashjoin = off',
                                 'enable_mergejoin = off', 'jit = off'] loop
            execute format('alter function %s set %s', f, s);
        end loop;
    end loop;
end $$;
