-- 0020_moved.sql: what the safety look of long-polls and event streams asks. Each of them is looked at every few seconds,
-- ten thousand at a time, for ends of which Redis told nothing; nearly always there are none. So this says which jobs have
-- another version than the one shown last, and only those are read.

create function kiln_moved(ids uuid[], versions int[]) returns table (id uuid)
language plpgsql volatile set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off
set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
#variable_conflict use_column
begin
    return query
        select u.id from unnest(ids, versions) u(id, version) left join jobs j on j.id = u.id
        where j.version is distinct from u.version;
end $$;
