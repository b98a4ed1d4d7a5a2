-- 0005_reads.sql: what the daemons read in batches, and the sweeps that delete what has expired. Nothing here changes a
-- job or an account. Times leave as RFC 3339 in UTC with milliseconds, amounts as integers.

create function kiln_time(t timestamptz) returns text language sql stable as $$
    select to_char(t at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

create function kiln_job_doc(j jobs) returns jsonb language sql volatile as $$
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
        'artifacts', coalesce((
            select jsonb_agg(jsonb_build_object('id', a.id, 'idx', a.idx, 'attempt', a.attempt, 'kind', a.kind,
                       'mime', a.mime, 'bytes', a.bytes, 'width', a.width, 'height', a.height, 'sha256', a.sha256,
                       'object', a.object, 'seed', a.seed, 'revised_prompt', a.revised_prompt, 'charged', a.charged,
                       'created_at', kiln_time(a.created_at)) order by a.idx, a.attempt)
            from artifacts a where a.job_id = j.id), '[]'))
$$;

-- One row for each id; app and doc are null when there is no such job. The caller compares the app.
create function kiln_job_json(ids uuid[]) returns table (ord int, app uuid, doc jsonb)
language plpgsql volatile as $$
begin
    return query
        select u.o::int, j.app_id, case when j.id is not null then kiln_job_doc(j) end
        from unnest(ids) with ordinality u(id, o) left join jobs j on j.id = u.id order by u.o;
end $$;

create function kiln_attempts_json(job uuid) returns jsonb language sql volatile as $$
    select coalesce(jsonb_agg(jsonb_build_object('no', a.no, 'state', a.state, 'class', a.class, 'provider', a.provider,
               'ref', a.ref, 'request_id', a.request_id, 'error_code', a.error_code, 'message', a.message,
               'provider_status', a.provider_status, 'cost_microusd', a.cost_microusd,
               'opened_at', kiln_time(a.opened_at), 'closed_at', kiln_time(a.closed_at)) order by a.no), '[]')
    from attempts a where a.job_id = kiln_attempts_json.job
$$;

-- The newest `max` jobs of an app before `before` (null: from the newest), one row each; null filters nothing. Ask for
-- one more than you show to know whether there are more.
create function kiln_jobs_page(app uuid, account text, state text, operation text, before uuid, max int)
returns table (doc jsonb)
language plpgsql volatile set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
    acc bigint;
begin
    if account is null then
        return query
            select kiln_job_doc(j) from jobs j
            where j.app_id = app and (before is null or j.id < before)
              and (kiln_jobs_page.state is null or j.state = kiln_jobs_page.state)
              and (kiln_jobs_page.operation is null or j.operation = kiln_jobs_page.operation)
            order by j.id desc limit max;
        return;
    end if;
    select a.id into acc from accounts a where a.app_id = app and a.name = account;
    return query
        select kiln_job_doc(j) from jobs j
        where j.account_id = acc and (before is null or j.id < before)
          and (kiln_jobs_page.state is null or j.state = kiln_jobs_page.state)
          and (kiln_jobs_page.operation is null or j.operation = kiln_jobs_page.operation)
        order by j.id desc limit max;
end $$;

-- For the reconciler: envelopes of jobs that Redis has to know: queued, and running without a living holder. Keyset by
-- id: pass the last id of the page before. since and before bound created_at; since null is the full pass.
create function kiln_unpublished(since timestamptz, before timestamptz, after_id uuid, max int)
returns table (id uuid, app uuid, account text, operation text, provider text, state text, params jsonb, inputs jsonb,
               units int, priority int, attempt int, created_at_ms bigint, run_at_ms bigint, deadline_at_ms bigint,
               max_running int)
language plpgsql volatile set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
begin
    if since is not null then
        return query
            with fresh as materialized (
                select j.* from jobs j
                where j.state in ('queued', 'running') and j.created_at >= since
                  and (kiln_unpublished.before is null or j.created_at < kiln_unpublished.before))
            select j.id, j.app_id, j.account, j.operation, j.provider, j.state, j.params, j.inputs, j.units, j.priority,
                   j.attempt, (extract(epoch from j.created_at) * 1000)::bigint,
                   (extract(epoch from j.run_at) * 1000)::bigint, (extract(epoch from j.deadline_at) * 1000)::bigint,
                   a.max_running
            from fresh j join accounts a on a.id = j.account_id
            where (after_id is null or j.id > after_id) and j.blocked_by is null
              and (j.state = 'queued' or not exists (select 1 from workers w where w.id = j.holder and w.dead_at is null))
            order by j.id limit max;
        return;
    end if;
    return query
        select j.id, j.app_id, j.account, j.operation, j.provider, j.state, j.params, j.inputs, j.units, j.priority,
               j.attempt, (extract(epoch from j.created_at) * 1000)::bigint,
               (extract(epoch from j.run_at) * 1000)::bigint, (extract(epoch from j.deadline_at) * 1000)::bigint,
               a.max_running
        from jobs j join accounts a on a.id = j.account_id
        where j.state in ('queued', 'running') and (after_id is null or j.id > after_id) and j.blocked_by is null
          and (kiln_unpublished.before is null or j.created_at < kiln_unpublished.before)
          and (j.state = 'queued' or not exists (select 1 from workers w where w.id = j.holder and w.dead_at is null))
        order by j.id limit max;
end $$;

-- For a worker's resync: the jobs that PostgreSQL says are its own, with the fence to guard a hand back by.
create function kiln_held(worker uuid, after_id uuid, max int)
returns table (id uuid, fence bigint, attempt int, ref text)
language plpgsql volatile set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
begin
    return query
        select j.id, j.fence, j.attempt, a.ref
        from jobs j left join attempts a on a.job_id = j.id and a.no = j.attempt and a.state = 'open'
        where j.state = 'running' and j.holder = worker and (after_id is null or j.id > after_id)
        order by j.id limit max;
end $$;

-- Deletes the rows of uploads whose objects the caller has removed (`done`), then names up to `max` more that have
-- expired: object first, row after, so that a death in between leaves no orphan.
create function kiln_sweep_uploads(done uuid[], max int)
returns table (id uuid, object text)
language plpgsql volatile as $$
#variable_conflict use_column
begin
    delete from uploads u where u.id = any(done) and u.expires_at <= kiln_now();
    return query select u.id, u.object from uploads u where u.expires_at <= kiln_now() order by u.expires_at limit max;
end $$;

-- Deletes up to `max` idempotency keys that have expired; returns how many.
create function kiln_sweep_keys(max int) returns int
language plpgsql volatile as $$
declare
    n int;
begin
    delete from idempotency k where k.ctid = any(array(
        select i.ctid from idempotency i where i.expires_at <= kiln_now() order by i.expires_at limit max
        for update skip locked));
    get diagnostics n = row_count;
    return n;
end $$;

-- What the house may have paid for nothing, newest first: fate unknown, accepted but never delivered, answered without a
-- result that was charged, late results, and refusals that the settling worker marked with {"exposure": true}.
create function kiln_exposure(max int)
returns table (job uuid, app uuid, attempt int, operation text, provider text, reason text, state text, error_code text,
               ref text, request_id text, cost_microusd bigint, closed_at timestamptz, evidence jsonb)
language plpgsql volatile set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
begin
    return query
        select j.id, j.app_id, a.no, j.operation, a.provider,
               case when a.evidence ? 'exposure' then 'marked' when a.class = 'unknown' then 'unknown'
                    when a.class = 'accepted' then 'accepted' else 'uncharged' end,
               j.state, coalesce(a.error_code, j.error_code), a.ref, a.request_id, a.cost_microusd, a.closed_at, a.evidence
        from attempts a join jobs j on j.id = a.job_id
        where a.state = 'closed' and (a.class in ('unknown', 'accepted') or a.error_code is not null or a.evidence is not null)
          and (a.class in ('unknown', 'accepted') or a.evidence ? 'exposure'
               or (a.class = 'answered' and a.error_code = 'bad_response')
               or (a.cost_microusd > 0 and not (j.state = 'succeeded' and a.no = j.attempt)))
        order by a.closed_at desc limit max;
end $$;
