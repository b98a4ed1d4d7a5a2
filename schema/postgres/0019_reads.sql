-- 0019_reads.sql: what the fresh pass asks. It looks at each job that came in, thousands a second, and nearly all of them
-- are in Redis, as the dispatcher that leads knows; so ids come first, out of jobs_open alone, and rows only of the rest.

create function kiln_open_ids(after_id uuid, before_id uuid, max int) returns table (id uuid)
language plpgsql volatile set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
begin
    return query
        select j.id from jobs j
        where j.finished_at is null and j.id > after_id and j.id < before_id
        order by j.id limit max;
end $$;

-- As kiln_unpublished, of these.
create function kiln_unpublished_of(ids uuid[])
returns table (id uuid, app uuid, account text, operation text, provider text, state text, params jsonb, inputs jsonb,
               units int, priority int, attempt int, created_at_ms bigint, run_at_ms bigint, deadline_at_ms bigint,
               max_running int)
language plpgsql volatile set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
begin
    return query
        select j.id, j.app_id, j.account, j.operation, j.provider, j.state, j.params, j.inputs, j.units, j.priority,
               j.attempt, (extract(epoch from j.created_at) * 1000)::bigint,
               (extract(epoch from j.run_at) * 1000)::bigint, (extract(epoch from j.deadline_at) * 1000)::bigint,
               a.max_running
        from unnest(ids) u(id) join jobs j on j.id = u.id join accounts a on a.id = j.account_id
        where j.state in ('queued', 'running') and j.blocked_by is null
          and (j.state = 'queued' or not exists (select 1 from workers w where w.id = j.holder and w.dead_at is null))
        order by j.id;
end $$;

-- Statistics are behind just when much comes in (0011_repair_plans.sql).
do $$
declare
    f text;
    s text;
begin
    foreach f in array array['kiln_open_ids(uuid, uuid, int)', 'kiln_unpublished_of(uuid[])'] loop
        foreach s in array array['enable_seqscan = off', 'enable_bitmapscan = off', 'enable_hashjoin = off',
                                 'enable_mergejoin = off', 'jit = off'] loop
            execute format('alter function %s set %s', f, s);
        end loop;
    end loop;
end $$;

-- What GET /v1/jobs/{id} shows, as columns: whoever asks writes the answer's text of them (dispatcher/job_look.c), which costs
-- a third of building the document here and taking it apart there. Texts of JSON go through as they are. A job with several
-- artifacts has a row for each, in their order; what may be large is in the first.
create function kiln_jobs_shown(ids uuid[])
returns table (ord int, id uuid, app uuid, operation text, provider text, account text, state text, version int,
               params text, hold_mc bigint, captured_mc bigint, error_code text, error_message text, provider_status int,
               attempts int, created_us bigint, started_us bigint, finished_us bigint, metadata text, notes text,
               retry_of uuid, cached_of text, batch uuid,
               artifact uuid, kind text, mime text, bytes bigint, width int, height int, sha256 text, seed text,
               revised_prompt text, blurhash text, color text)
language plpgsql volatile set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
begin
    return query
        select u.o::int, j.id, j.app_id, j.operation, j.provider, j.account, j.state, j.version,
               case when a.idx is null or a.is_first then j.params::text end, j.hold_mc, j.captured_mc, j.error_code,
               j.error_message, j.provider_status, j.attempt,
               (extract(epoch from j.created_at) * 1000000)::bigint, (extract(epoch from j.started_at) * 1000000)::bigint,
               (extract(epoch from j.finished_at) * 1000000)::bigint,
               case when a.idx is null or a.is_first then j.metadata::text end,
               case when a.idx is null or a.is_first then (j.extras -> 'notes')::text end, j.retry_of,
               j.extras -> 'cached' ->> 'of', j.batch_id,
               a.id, a.kind, a.mime, a.bytes, a.width, a.height, a.sha256, a.seed, a.revised_prompt, a.blurhash, a.color
        from unnest(ids) with ordinality u(id, o)
        left join lateral (select * from jobs x where x.id = u.id limit 1) j on true
        left join lateral (
            select x.*, row_number() over (order by x.idx, x.attempt) = 1 as is_first
            from artifacts x where x.job_id = j.id) a on true
        order by u.o, a.idx, a.attempt;
end $$;
