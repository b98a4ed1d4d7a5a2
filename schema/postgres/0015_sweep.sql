-- 0015_sweep.sql: which objects of results nobody needs. Those of finished jobs, an hour after their end, that no artifact names:
-- neither their own job's, nor that of a job answered from the cache (attempt 0, 0012_cache.sql).

-- `objects` are names of the form job/xx/<job>/<fence>/<index>.
create function kiln_unnamed_results(objects text[]) returns table (object text)
language plpgsql volatile set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
#variable_conflict use_column
begin
    return query
        select u.o from unnest(objects) u(o) join jobs j on j.id = split_part(u.o, '/', 3)::uuid
        where j.state in ('succeeded', 'failed', 'canceled') and j.finished_at < kiln_now() - interval '1 hour'
          and not exists (select 1 from artifacts a where a.job_id = j.id and a.object = u.o)
          and not exists (select 1 from artifacts a where a.object = u.o and a.attempt = 0);
end $$;
