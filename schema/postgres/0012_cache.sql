-- 0012_cache.sql: jobs that may be answered from an earlier result of their app (`cache` in POST /v1/jobs).
--
-- A cached job has a key: SHA-256 of app, operation, normalised parameters and files by content, made by the dispatcher.
-- Of each key at most one open job *leads*: it is asked of a provider like any other. The others of the key *wait*: they
-- are queued, hold the full price (whoever waits may have to lead) and are blocked by the nil id, which no job has, so that
-- nothing but kiln_cache_settle, or their own end, moves them. Whom they wait for is written nowhere: it is who leads their
-- key. So whatever ends a leader needs to know nothing of this file, and nothing that dies in between leaves a waiter behind.
--
-- A succeeded job that still has its key is the entry of that key. A job answered from it holds, and is charged, the
-- cache price (extras.cached.unit_mc); it has artifact rows of its own, attempt 0, of the same objects, and no key.

alter table jobs add column cache_key text;                     -- null: not cached, or answered from the cache
-- One leader a key. kiln_accept_cached and kiln_cache_settle agree on it by kiln_cache_lock; this is the guard.
create unique index jobs_cache_lead on jobs (app_id, cache_key)
    where cache_key is not null and state in ('queued', 'running') and blocked_by is null;
create index jobs_cache_wait on jobs (app_id, cache_key, id)
    where cache_key is not null and state = 'queued' and blocked_by is not null;
create index jobs_cache_entry on jobs (app_id, cache_key, finished_at)
    where cache_key is not null and state = 'succeeded';
-- What the sweep asks of an object whose own job does not name it.
create index artifacts_shared on artifacts (object) where attempt = 0;

create function kiln_cache_lock(app uuid, key text) returns bigint language sql immutable as $$
    select hashtextextended('cache/' || app || '/' || key, 0)
$$;

-- What one delivered unit of a job costs: from the cache the cache's price; of a route, the price of the provider that
-- made it, never above the hold's.
create or replace function kiln_charge_mc(extras jsonb, provider text, unit_mc bigint) returns bigint
language sql immutable as $$
    select case when extras is null then unit_mc
                when extras -> 'cached' is not null then least((extras -> 'cached' ->> 'unit_mc')::bigint, unit_mc)
                when extras -> 'route' is null then unit_mc
                else coalesce((select least((l ->> 'unit_mc')::bigint, unit_mc)
                               from jsonb_array_elements(extras -> 'route') l
                               where l ->> 'provider' = kiln_charge_mc.provider limit 1), unit_mc) end
$$;

-- The newest result that may answer a job of this key: whole, with artifacts, and younger at `at` than both it and the
-- asking job allow.
create function kiln_cache_entry(app uuid, key text, units int, ttl_s int, at timestamptz) returns uuid
language sql volatile as $$
    select x.id from jobs x
    where x.app_id = kiln_cache_entry.app and x.cache_key = kiln_cache_entry.key and x.state = 'succeeded'
      and x.delivered = x.units and x.units = kiln_cache_entry.units
      and x.finished_at > at - make_interval(secs => least(ttl_s, (x.extras -> 'cache' ->> 'ttl_s')::int))
      and exists (select 1 from artifacts f where f.job_id = x.id and f.charged)
    order by x.finished_at desc limit 1
$$;

-- Ends these open jobs with the results of those. Inner: the caller holds the locks on `ids` and knows that they are open.
create function kiln_cache_answer(ids uuid[], entries uuid[]) returns void
language plpgsql volatile as $$
#variable_conflict use_column
declare
    now_ constant timestamptz := kiln_now();
begin
    if coalesce(cardinality(ids), 0) = 0 then
        return;
    end if;
    update jobs j set cache_key = null, blocked_by = null, provider = e.provider,
                      extras = j.extras || jsonb_build_object('cached', jsonb_build_object('of', e.id,
                          'unit_mc', least((j.extras -> 'cache' ->> 'unit_mc')::bigint, j.unit_mc)))
        from unnest(ids, entries) u(id, entry) join jobs e on e.id = u.entry
        where j.id = u.id;
    insert into artifacts
        select n.* from unnest(ids, entries) u(id, entry)
        join jobs j on j.id = u.id
        join artifacts f on f.job_id = u.entry and f.charged
        cross join lateral jsonb_populate_record(f, jsonb_build_object('id', gen_random_uuid(), 'job_id', j.id,
            'attempt', 0, 'fence', j.fence, 'created_at', now_)) n;
    perform kiln_finish(ids, array_fill('succeeded'::text, array[cardinality(ids)]),
                        array(select j.units from unnest(ids) with ordinality u(id, o) join jobs j on j.id = u.id
                              order by u.o),
                        array_fill(null::text, array[cardinality(ids)]), array_fill(null::text, array[cardinality(ids)]),
                        array_fill(null::int, array[cardinality(ids)]));
end $$;

-- kiln_accept for jobs that may be answered from the cache; extras hold {"cache": {"ttl_s", "unit_mc"}}. verdict: cached
-- (it has succeeded already) | waiting (for the leader of its key) | else kiln_accept's, `accepted` being the leader.
-- Calling again with the same ids says where each job stands now.
create function kiln_accept_cached(ids_ uuid[], apps_ uuid[], accounts_ text[], keys_ text[], hashes_ text[],
                                   operations_ text[], providers_ text[], params_ jsonb[], inputs_ jsonb[], units_ int[],
                                   unit_mcs_ bigint[], price_versions_ text[], priorities_ int[], deadlines_s_ int[],
                                   on_unknowns_ text[], metadata_ jsonb[], max_queued_ int, extras_ jsonb[],
                                   cache_keys_ text[])
returns table (ord int, verdict text, job uuid, created_at timestamptz, needed bigint, available bigint)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    n constant int := coalesce(array_length(ids_, 1), 0);
    now_ constant timestamptz := kiln_now();
    r record;
    hit boolean;
    entries uuid[];             -- by row: the job whose result answers it
    olds boolean[];             -- by row: accepted by an earlier copy of this call
    verdicts text[];
    jobs_ uuid[];
    made timestamptz[];
    needs bigint[];
    frees bigint[];
begin
    if n = 0 then
        return;
    end if;
    -- One call at a time for each key, also against kiln_cache_settle. Reads come in later statements.
    perform pg_advisory_xact_lock(s.h)
        from (select distinct kiln_cache_lock(u.app, u.key) as h from unnest(apps_, cache_keys_) u(app, key) order by 1) s;
    select array_agg(case when j.id is null then
                              kiln_cache_entry(u.app, u.key, u.units, (u.extras -> 'cache' ->> 'ttl_s')::int, now_) end
                     order by u.o), array_agg(j.id is not null order by u.o)
        into entries, olds
        from unnest(ids_, apps_, cache_keys_, units_, extras_) with ordinality u(id, app, key, units, extras, o)
        left join jobs j on j.id = u.id;

    verdicts := array_fill(null::text, array[n]);
    jobs_ := array_fill(null::uuid, array[n]);
    made := array_fill(null::timestamptz, array[n]);
    needs := array_fill(0::bigint, array[n]);
    frees := array_fill(null::bigint, array[n]);
    foreach hit in array array[true, false] loop                -- what is answered at once fills no queue
        continue when not exists (select 1 from unnest(entries) e where (e is not null) = hit);
        for r in
            select a.*, x.rows_ from (
                select array_agg(p.o order by p.o) as rows_, array_agg(ids_[p.o] order by p.o) as ids,
                       array_agg(apps_[p.o] order by p.o) as apps, array_agg(accounts_[p.o] order by p.o) as accounts,
                       array_agg(keys_[p.o] order by p.o) as keys, array_agg(hashes_[p.o] order by p.o) as hashes,
                       array_agg(operations_[p.o] order by p.o) as operations,
                       array_agg(providers_[p.o] order by p.o) as providers, array_agg(params_[p.o] order by p.o) as params,
                       array_agg(inputs_[p.o] order by p.o) as inputs, array_agg(units_[p.o] order by p.o) as units,
                       array_agg(case when hit then least((extras_[p.o] -> 'cache' ->> 'unit_mc')::bigint, unit_mcs_[p.o])
                                      else unit_mcs_[p.o] end order by p.o) as unit_mcs,
                       array_agg(price_versions_[p.o] order by p.o) as price_versions,
                       array_agg(priorities_[p.o] order by p.o) as priorities,
                       array_agg(null::timestamptz order by p.o) as run_ats,
                       array_agg(deadlines_s_[p.o] order by p.o) as deadlines_s,
                       array_agg(on_unknowns_[p.o] order by p.o) as on_unknowns,
                       array_agg(metadata_[p.o] order by p.o) as metadata, array_agg(extras_[p.o] order by p.o) as extras,
                       array_agg(null::uuid order by p.o) as none
                from unnest(entries) with ordinality p(e, o) where (p.e is not null) = hit) x,
            kiln_accept(ids => x.ids, apps => x.apps, accounts => x.accounts, keys => x.keys, hashes => x.hashes,
                        operations => x.operations, providers => x.providers, params => x.params, inputs => x.inputs,
                        units => x.units, unit_mcs => x.unit_mcs, price_versions => x.price_versions,
                        priorities => x.priorities, run_ats => x.run_ats, deadlines_s => x.deadlines_s,
                        on_unknowns => x.on_unknowns, metadata => x.metadata, retry_ofs => x.none, batches => x.none,
                        extras => x.extras, max_queued => case when not hit then max_queued_ end) a
        loop
            verdicts[r.rows_[r.ord]] := r.verdict;
            jobs_[r.rows_[r.ord]] := r.job;
            made[r.rows_[r.ord]] := r.created_at;
            needs[r.rows_[r.ord]] := r.needed;
            frees[r.rows_[r.ord]] := r.available;
        end loop;
    end loop;

    perform kiln_cache_answer(array_agg(s.id), array_agg(s.entry))
        from (select distinct on (u.id) u.id, u.entry
              from unnest(ids_, entries, olds, verdicts) u(id, entry, old, v)
              where u.v = 'accepted' and not u.old and u.entry is not null order by u.id) s;
    -- The first new job of a key leads, unless one does already.
    update jobs j set cache_key = s.key,
                      blocked_by = case when s.no > 1 or exists (
                          select 1 from jobs l where l.app_id = s.app and l.cache_key = s.key and
                                 l.state in ('queued', 'running') and l.blocked_by is null)
                          then '{00000000-0000-0000-0000-000000000000}'::uuid[] end
        from (select u.id, u.app, u.key, row_number() over (partition by u.app, u.key order by u.o) as no
              from unnest(ids_, apps_, cache_keys_, entries, olds, verdicts) with ordinality
                   u(id, app, key, entry, old, v, o)
              where u.v = 'accepted' and not u.old and u.entry is null) s
        where j.id = s.id;

    return query
        select u.o::int, case when u.v <> 'accepted' then u.v when j.extras -> 'cached' is not null then 'cached'
                              when j.blocked_by is not null then 'waiting' else 'accepted' end,
               u.job, u.made, u.need, u.free
        from unnest(verdicts, jobs_, made, needs, frees) with ordinality u(v, job, made, need, free, o)
        left join jobs j on j.id = u.job
        order by u.o;
end $$;

-- For the reconciler: keys whose jobs wait while none leads. Who waits is answered from the entry that came meanwhile; if
-- there is none, the oldest leads now and is to be published. At most about `max` jobs a call; what another call is at is
-- left to it. `state` is succeeded or queued; the count tells whether there may be more.
create function kiln_cache_settle(max int)
returns table (job uuid, state text, version int, app uuid, account text, provider text, priority int,
               created_at_ms bigint, max_running int)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    k record;
    answered uuid[] := '{}';
    entries uuid[] := '{}';
    led uuid[] := '{}';
    ids uuid[];
    froms uuid[];
    next uuid;
begin
    for k in
        with recursive waiting as (                             -- each key once, by steps along the index
            (select j.app_id, j.cache_key from jobs j
             where j.cache_key is not null and j.state = 'queued' and j.blocked_by is not null
             order by j.app_id, j.cache_key limit 1)
            union all
            select s.app_id, s.cache_key from waiting w cross join lateral (
                select j.app_id, j.cache_key from jobs j
                where j.cache_key is not null and j.state = 'queued' and j.blocked_by is not null
                  and (j.app_id, j.cache_key) > (w.app_id, w.cache_key)
                order by j.app_id, j.cache_key limit 1) s)
        select w.app_id as app, w.cache_key as key from waiting w
        where not exists (select 1 from jobs l where l.app_id = w.app_id and l.cache_key = w.cache_key and
                                 l.state in ('queued', 'running') and l.blocked_by is null)
    loop
        exit when cardinality(answered) + cardinality(led) >= max;
        continue when not pg_try_advisory_xact_lock(kiln_cache_lock(k.app, k.key));
        continue when exists (select 1 from jobs l where l.app_id = k.app and l.cache_key = k.key and
                                     l.state in ('queued', 'running') and l.blocked_by is null);
        select array_agg(s.id order by s.id), array_agg(s.entry order by s.id) into ids, froms
            from (select f.id, kiln_cache_entry(f.app_id, f.cache_key, f.units, (f.extras -> 'cache' ->> 'ttl_s')::int,
                                                f.created_at) as entry
                  from (select j.* from jobs j
                        where j.app_id = k.app and j.cache_key = k.key and j.state = 'queued' and j.blocked_by is not null
                        order by j.id limit max for no key update skip locked) f) s;
        continue when ids is null;
        answered := answered || array(select u.id from unnest(ids, froms) u(id, entry) where u.entry is not null);
        entries := entries || array(select u.entry from unnest(ids, froms) u(id, entry) where u.entry is not null);
        next := (select u.id from unnest(ids, froms) u(id, entry) where u.entry is null order by u.id limit 1);
        if next is not null then
            update jobs j set blocked_by = null, version = j.version + 1 where j.id = next;
            led := led || next;
        end if;
    end loop;
    perform kiln_cache_answer(answered, entries);
    return query
        select j.id, j.state, j.version, j.app_id, j.account, j.provider, j.priority,
               (extract(epoch from j.created_at) * 1000)::bigint, a.max_running
        from unnest(answered || led) u(id) join jobs j on j.id = u.id join accounts a on a.id = j.account_id;
end $$;

-- The objects of the results that may answer, the newest first, for the caller to look whether they are still there.
create function kiln_cache_objects(app uuid, key text, max int) returns table (job uuid, object text)
language plpgsql volatile as $$
#variable_conflict use_column
begin
    return query
        select x.id, f.object from jobs x join artifacts f on f.job_id = x.id and f.charged
        where x.app_id = kiln_cache_objects.app and x.cache_key = kiln_cache_objects.key and x.state = 'succeeded'
        order by x.finished_at desc limit max;
end $$;

-- These results are no entries any more: their objects are gone.
create function kiln_cache_drop(ids uuid[]) returns void language plpgsql volatile as $$
#variable_conflict use_column
begin
    perform 1 from jobs j where j.id = any(ids) order by j.id for no key update;
    update jobs j set cache_key = null where j.id = any(ids) and j.state = 'succeeded';
end $$;

create or replace function kiln_job_doc(j jobs) returns jsonb language sql volatile as $$
    select jsonb_build_object(
        'id', j.id, 'app', j.app_id, 'account', j.account, 'operation', j.operation, 'provider', j.provider,
        'state', j.state, 'params', j.params, 'inputs', j.inputs, 'metadata', j.metadata, 'priority', j.priority,
        'units', j.units, 'unit_mc', j.unit_mc, 'hold_mc', j.hold_mc, 'captured_mc', j.captured_mc,
        'delivered', j.delivered, 'price_version', j.price_version, 'attempts', j.attempt, 'tries', j.tries,
        'unknowns', j.unknowns, 'losses', j.losses, 'holder', j.holder, 'fence', j.fence)
    || jsonb_build_object(
        'on_unknown', j.on_unknown, 'version', j.version, 'error_code', j.error_code, 'error_message', j.error_message,
        'provider_status', j.provider_status, 'retry_of', j.retry_of, 'batch', j.batch_id, 'blocked_by', j.blocked_by,
        'parent', j.parent, 'step', j.step, 'run_at', kiln_time(j.run_at), 'deadline_at', kiln_time(j.deadline_at),
        'created_at', kiln_time(j.created_at), 'started_at', kiln_time(j.started_at),
        'finished_at', kiln_time(j.finished_at), 'notes', coalesce(j.extras -> 'notes', '[]'),
        'cached_of', j.extras -> 'cached' -> 'of',
        'artifacts', coalesce((
            select jsonb_agg(jsonb_build_object('id', a.id, 'idx', a.idx, 'attempt', a.attempt, 'kind', a.kind,
                       'mime', a.mime, 'bytes', a.bytes, 'width', a.width, 'height', a.height, 'sha256', a.sha256,
                       'object', a.object, 'seed', a.seed, 'revised_prompt', a.revised_prompt, 'charged', a.charged,
                       'created_at', kiln_time(a.created_at)) order by a.idx, a.attempt)
            from artifacts a where a.job_id = j.id), '[]'))
$$;

-- One plan a session, made of index look-ups: 0007_plans.sql says why.
do $$
declare
    f regprocedure;
    s text;
begin
    for f in select p.oid::regprocedure from pg_proc p
             where p.pronamespace = current_schema()::regnamespace and p.proname in ('kiln_accept_cached',
                   'kiln_cache_answer', 'kiln_cache_settle', 'kiln_cache_objects', 'kiln_cache_drop')
    loop
        foreach s in array array['plan_cache_mode = force_generic_plan', 'enable_seqscan = off', 'enable_hashjoin = off',
                                 'enable_mergejoin = off', 'jit = off'] loop
            execute format('alter function %s set %s', f, s);
        end loop;
    end loop;
end $$;
