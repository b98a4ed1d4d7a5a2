-- 0003_run.sql: what a worker does to a job: start, checkpoint, settle, hand back, report a loss; and kiln_finish, the
-- only function that ends one. The steps are those of protocol.md; `W` there is "running, holder is me, fence is mine".
--
-- Every function locks its jobs first, ids ascending, and reads in a later statement, so that it sees what the last
-- writer left. One output row for each input row; calling again after a lost reply answers the same, or `mine`.

-- kiln_finish: state, money, ledger, outbox and children of jobs that end now, in one statement. Inner: its callers hold
-- the locks on the jobs and know that these are not finished; should one be, that is our mistake and nothing happens.
-- What is captured is at most the hold; the rest is released. An attempt still open is closed: without a class nobody
-- knows whether it was sent.
-- What one delivered unit of a job costs: of a route, the price of the provider that made it, never above the hold's.
create function kiln_charge_mc(extras jsonb, provider text, unit_mc bigint) returns bigint language sql immutable as $$
    select case when extras -> 'route' is null then unit_mc
                else coalesce((select least((l ->> 'unit_mc')::bigint, unit_mc)
                               from jsonb_array_elements(extras -> 'route') l
                               where l ->> 'provider' = kiln_charge_mc.provider limit 1), unit_mc) end
$$;

create function kiln_finish(ids uuid[], states text[], units_ int[], codes text[], messages text[], statuses int[])
returns void
language plpgsql volatile as $$
#variable_conflict use_column
declare
    now_ constant timestamptz := kiln_now();
    done int;
begin
    if coalesce(array_length(ids, 1), 0) = 0 then
        return;
    end if;
    update attempts a set state = 'closed', class = coalesce(a.class, 'unknown'), closed_at = now_
        where a.job_id = any(ids) and a.state = 'open';

    if exists (select 1 from jobs j where j.blocked_by && ids) then
        perform 1 from jobs j where j.blocked_by && ids order by j.id for no key update;
        update jobs j set version = j.version + 1,
                          blocked_by = nullif(array(select b from unnest(j.blocked_by) b where b <> all(ids)), '{}')
            where j.blocked_by && ids;
    end if;

    perform 1 from accounts a where a.id in (select j.account_id from jobs j where j.id = any(ids))
        order by a.id for no key update;

    with x as (
        update jobs j set state = u.state, holder = null, version = j.version + 1, finished_at = now_,
                          delivered = case when u.state = 'succeeded' then coalesce(u.units, j.units) else 0 end,
                          captured_mc = case when u.state = 'succeeded'
                              then least(greatest(coalesce(u.units, j.units), 0), j.units) *
                                   kiln_charge_mc(j.extras, j.provider, j.unit_mc) else 0 end,
                          error_code = u.code, error_message = u.message, provider_status = u.status
        from unnest(ids, states, units_, codes, messages, statuses) with ordinality
             u(id, state, units, code, message, status, o)
        where j.id = u.id and j.captured_mc is null
        returning j.id, j.account_id, j.hold_mc as hold, j.captured_mc as captured, j.webhook, j.state, u.o
    ), y as (
        select x.*, a.balance - sum(x.captured) over w as balance, a.held - sum(x.hold) over w as held
        from x join accounts a on a.id = x.account_id
        where x.hold > 0
        window w as (partition by x.account_id order by x.o)
    ), l as (
        insert into ledger (account_id, job_id, kind, amount, balance_after, held_after, created_at)
        select y.account_id, y.id, k.kind, k.amount, y.balance::bigint, (y.held + k.still)::bigint, now_
        from y cross join lateral (values ('capture', y.captured, y.hold - y.captured),
                                          ('release', y.hold - y.captured, 0)) k(kind, amount, still)
        where k.amount > 0
        order by y.account_id, y.o, k.kind
    ), b as (
        update accounts a set balance = a.balance - s.captured, held = a.held - s.hold
        from (select x.account_id, sum(x.captured)::bigint as captured, sum(x.hold)::bigint as hold
              from x where x.hold > 0 group by x.account_id) s
        where a.id = s.account_id
    ), w as (
        insert into outbox (job_id, kind, payload, created_at)
        select x.id, 'job.' || x.state, jsonb_build_object('job', x.id, 'state', x.state, 'webhook', x.webhook), now_
        from x where x.webhook is not null
        order by x.o
    )
    select count(*) into done from x;
    if done <> array_length(ids, 1) then
        raise exception 'kiln_finish: % of % jobs were open', done, array_length(ids, 1) using errcode = 'internal_error';
    end if;
end $$;

-- verdict, the first that fits: dead | finished | later | go | busy | resume | settle | unknown. `remaining_ms` is the
-- time to the deadline; of `later` the time to wait. `go` has written the attempt ahead.
create function kiln_start(worker uuid, ids uuid[], unsents boolean[], note_attempts int[], notes jsonb[])
returns table (ord int, verdict text, fence bigint, attempt int, ref text, remaining_ms bigint, unknowns int, tries int,
               attempt_age_ms bigint, provider text)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    now_ timestamptz;
    acts text[];
    refs text[];
begin
    perform 1 from jobs j where j.id = any(ids) and j.captured_mc is null order by j.id for no key update;
    now_ := kiln_now();
    perform 1 from workers w where w.id = worker and w.dead_at is null;
    if not found then                                           -- 0: beat first
        return query select u.o::int, 'dead', null::bigint, null::int, null::text, null::bigint, null::int, null::int,
                            null::bigint, null::text
            from unnest(ids) with ordinality u(id, o) order by u.o;
        return;
    end if;

    select array_agg(x.act order by x.o), array_agg(case when x.act in ('resume', 'adopt') then x.ref end order by x.o)
        into acts, refs
        from (select u.o, coalesce(a.ref, nullif(u.note ->> 'ref', '')) as ref,
                case
                when j.id is null or j.state in ('succeeded', 'failed', 'canceled') then 'finished'         -- 1
                when j.state = 'queued' and (j.blocked_by is not null or j.run_at > now_) then 'later'
                when row_number() over (partition by u.id order by u.o) > 1 then 'busy'     -- twice in one call: once
                when j.state = 'queued' then 'open'                                                         -- 2
                when u.unsent and j.holder = worker and a.fence = j.fence and a.class is null and a.ref is null
                    then 'mine'                                                                             -- 3
                when j.holder <> worker and exists (select 1 from workers h where h.id = j.holder and h.dead_at is null)
                    then 'busy'                                                                             -- 4
                when a.ref is not null then 'resume'                                                        -- 5
                when a.no = u.note_no and a.class is null and nullif(u.note ->> 'ref', '') is not null then 'adopt'
                when a.no = u.note_no and a.class is null and jsonb_typeof(u.note -> 'outcome') = 'object' then 'settle'
                else 'unknown'
                end as act
              from unnest(ids, unsents, note_attempts, notes) with ordinality u(id, unsent, note_no, note, o)
              left join jobs j on j.id = u.id
              left join attempts a on a.job_id = j.id and a.no = j.attempt and a.state = 'open') x;

    update jobs j set fence = j.fence + 1, holder = worker, state = 'running',
                      attempt = j.attempt + (u.act = 'open')::int, version = j.version + (u.act = 'open')::int,
                      started_at = coalesce(j.started_at, now_)
        from unnest(ids, acts) u(id, act)
        where j.id = u.id and u.act in ('open', 'resume', 'adopt', 'settle', 'unknown');
    insert into attempts (job_id, no, fence, provider, opened_at)
        select j.id, j.attempt, j.fence, j.provider, now_
        from unnest(ids, acts) u(id, act) join jobs j on j.id = u.id
        where u.act = 'open' order by j.id;
    if 'adopt' = any(acts) then
        update attempts a set ref = u.ref, class = 'accepted',
                              request_id = coalesce(u.note ->> 'request_id', a.request_id)
            from unnest(ids, acts, refs, notes) u(id, act, ref, note)
            where a.job_id = u.id and a.state = 'open' and u.act = 'adopt';
    end if;

    return query
        select u.o::int, case u.act when 'open' then 'go' when 'mine' then 'go' when 'adopt' then 'resume' else u.act end,
               case when u.act not in ('finished', 'later', 'busy') then j.fence end,
               case when u.act not in ('finished', 'later', 'busy') then j.attempt end, u.ref,
               case when u.act = 'later' then
                        greatest(1, ceil(extract(epoch from coalesce(j.run_at, now_) - now_) * 1000),
                                 case when j.blocked_by is not null then 5000 end)::bigint
                    when u.act not in ('finished', 'busy') then
                        greatest(0, floor(extract(epoch from j.deadline_at - now_) * 1000))::bigint end,
               j.unknowns, j.tries,
               case when u.act not in ('finished', 'later', 'busy') then
                        greatest(0, floor(extract(epoch from now_ - a.opened_at) * 1000))::bigint end,
               coalesce(a.provider, j.provider)
        from unnest(ids, acts, refs) with ordinality u(id, act, ref, o)
        left join jobs j on j.id = u.id
        left join attempts a on a.job_id = j.id and a.no = j.attempt and a.state = 'open'
        order by u.o;
end $$;

-- verdict: saved | stale | finished. The reference of a request that a stale worker had accepted is kept as evidence.
create function kiln_checkpoint(worker uuid, ids uuid[], fences bigint[], attempts int[], refs text[], request_ids text[])
returns table (ord int, verdict text)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    verdicts text[];
begin
    perform 1 from jobs j where j.id = any(ids) and j.captured_mc is null order by j.id for no key update;
    perform 1 from attempts a where (a.job_id, a.no) in (select u.id, u.no from unnest(ids, attempts) u(id, no))
        order by a.job_id, a.no for no key update;
    select array_agg(case when j.id is null or j.state in ('succeeded', 'failed', 'canceled') then 'finished'
                          when j.state = 'running' and j.holder = worker and j.fence = u.fence and a.state = 'open' and
                               u.ref <> '' and coalesce(a.ref, u.ref) = u.ref then 'saved'
                          else 'stale' end order by u.o)
        into verdicts
        from unnest(ids, fences, attempts, refs) with ordinality u(id, fence, no, ref, o)
        left join jobs j on j.id = u.id
        left join attempts a on a.job_id = u.id and a.no = u.no;

    update attempts a set ref = u.ref, class = 'accepted', request_id = coalesce(u.request_id, a.request_id)
        from unnest(ids, attempts, refs, request_ids, verdicts) u(id, no, ref, request_id, v)
        where a.job_id = u.id and a.no = u.no and u.v = 'saved' and a.ref is null;
    if verdicts && '{stale,finished}' then
        update attempts a set evidence = coalesce(a.evidence, '{}') || jsonb_build_object('late_ref_' || u.fence,
                   jsonb_strip_nulls(jsonb_build_object('ref', u.ref, 'request_id', u.request_id, 'worker', worker)))
            from unnest(ids, fences, attempts, refs, request_ids, verdicts) u(id, fence, no, ref, request_id, v), jobs j
            where a.job_id = u.id and a.no = u.no and j.id = u.id and u.v in ('stale', 'finished') and
                  u.fence between a.fence and j.fence and a.ref is distinct from u.ref;
    end if;
    return query select u.o::int, u.v from unnest(verdicts) with ordinality u(v, o) order by u.o;
end $$;

-- verdict: committed | requeued | mine | stale | finished. state, version and run_delay_ms are the job's after the call.
-- outcomes: delivered (units that came, artifacts) | failed | retry (delay, does it count) | unknown.
create function kiln_settle(worker uuid, ids uuid[], fences bigint[], attempts int[], outcomes text[], codes text[],
                            classes text[], messages text[], provider_statuses int[], request_ids text[], units int[],
                            costs bigint[], delays_ms bigint[], counts boolean[], artifacts jsonb[], evidences jsonb[],
                            providers text[])
returns table (ord int, verdict text, state text, version int, run_delay_ms bigint)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    now_ timestamptz;
    acts text[];                -- succeed | fail | requeue; or mine | stale | finished | twin
begin
    if not outcomes <@ '{delivered,failed,retry,unknown}' or array_position(outcomes, null) is not null then
        raise exception 'kiln_settle: no such outcome' using errcode = 'invalid_parameter_value';
    end if;
    perform 1 from jobs j where j.id = any(ids) order by j.id for no key update;
    perform 1 from attempts a where (a.job_id, a.no) in (select u.id, u.no from unnest(ids, attempts) u(id, no))
        order by a.job_id, a.no for no key update;
    now_ := kiln_now();

    select array_agg(case
            when j.id is null then 'finished'
            when a.closed_by = worker and a.closed_fence = u.fence then 'mine'
            when j.state in ('succeeded', 'failed', 'canceled') then 'finished'
            when (j.state = 'running' and j.holder = worker and j.fence = u.fence and a.state = 'open') is not true
                then 'stale'
            when u.twin > 1 then 'twin'
            when u.outcome = 'delivered' then 'succeed'
            when u.outcome = 'retry' and (not coalesce(u.counts, true) or j.tries + 1 < 5) then 'requeue'
            when u.outcome = 'unknown' and j.on_unknown = 'retry' and j.unknowns = 0 then 'requeue'
            else 'fail' end order by u.o)
        into acts
        from (select *, row_number() over (partition by t.id order by t.o) as twin
              from unnest(ids, fences, attempts, outcomes, counts) with ordinality t(id, fence, no, outcome, counts, o)) u
        left join jobs j on j.id = u.id
        left join attempts a on a.job_id = u.id and a.no = u.no;

    if acts && '{succeed,fail,requeue}' then
        update attempts a set state = 'closed', closed_at = now_, closed_by = worker, closed_fence = u.fence,
                class = case when u.outcome = 'unknown' then 'unknown'
                             else coalesce(u.class, case u.outcome when 'retry' then 'refused' else 'answered' end) end,
                error_code = case when u.outcome <> 'delivered' then u.code end, message = u.message,
                provider_status = u.status, request_id = coalesce(u.request_id, a.request_id),
                cost_microusd = coalesce(u.cost, a.cost_microusd),
                evidence = case when u.evidence is null then a.evidence else coalesce(a.evidence, '{}') || u.evidence end
            from unnest(ids, fences, attempts, acts, outcomes, codes, classes, messages, provider_statuses, request_ids,
                        costs, evidences)
                 u(id, fence, no, act, outcome, code, class, message, status, request_id, cost, evidence)
            where a.job_id = u.id and a.no = u.no and u.act in ('succeed', 'fail', 'requeue');
        if 'requeue' = any(acts) or 'fail' = any(acts) then
            update jobs j set tries = j.tries + (u.outcome = 'retry' and coalesce(u.counts, true))::int,
                    unknowns = j.unknowns + (u.outcome = 'unknown')::int,
                    state = case when u.act = 'requeue' then 'queued' else j.state end,
                    holder = case when u.act = 'requeue' then null else j.holder end,
                    version = j.version + (u.act = 'requeue')::int,
                    run_at = case when u.act = 'requeue' then now_ + make_interval(secs => coalesce(u.delay, 0) / 1000.0)
                                  else j.run_at end,
                    provider = case when u.act = 'requeue' and u.outcome = 'retry' then coalesce(u.provider, j.provider)
                                    else j.provider end
                from unnest(ids, acts, outcomes, counts, delays_ms, providers) u(id, act, outcome, counts, delay, provider)
                where j.id = u.id and (u.act = 'requeue' or (u.act = 'fail' and u.outcome in ('retry', 'unknown')));
        end if;
        if 'succeed' = any(acts) then
            insert into artifacts (id, job_id, idx, attempt, fence, kind, mime, bytes, width, height, sha256, object, seed,
                                   revised_prompt, created_at)
                select x.id, u.id, x.idx, u.no, u.fence, x.kind, x.mime, x.bytes, x.width, x.height, x.sha256, x.object,
                       x.seed, x.revised_prompt, now_
                from unnest(ids, fences, attempts, acts, artifacts) u(id, fence, no, act, artifacts)
                cross join lateral jsonb_to_recordset(u.artifacts) x(id uuid, idx int, kind text, mime text, bytes bigint,
                    width int, height int, sha256 text, object text, seed text, revised_prompt text)
                where u.act = 'succeed' and jsonb_typeof(u.artifacts) = 'array';
        end if;
        perform kiln_finish(array_agg(u.id), array_agg(case u.act when 'succeed' then 'succeeded' else 'failed' end),
                            array_agg(case when u.act = 'succeed' then u.units end),
                            array_agg(case when u.act = 'succeed' then null when u.outcome = 'unknown' then 'outcome_unknown'
                                           else coalesce(u.code, 'provider_error') end),
                            array_agg(case when u.act = 'fail' then u.message end),
                            array_agg(case when u.act = 'fail' then u.status end))
            from unnest(ids, acts, units, outcomes, codes, messages, provider_statuses)
                 u(id, act, units, outcome, code, message, status)
            where u.act in ('succeed', 'fail');
    end if;

    -- Whoever refuses everybody is shunned by routes for a while; whoever delivers is not.
    if 'succeed' = any(acts) and exists (select 1 from breakers) then
        delete from breakers b where b.provider in (select a.provider from unnest(ids, attempts, acts) u(id, no, act)
                                                    join attempts a on a.job_id = u.id and a.no = u.no
                                                    where u.act = 'succeed');
    end if;
    if codes && '{auth,insufficient_funds,region_blocked}' and acts && '{fail,requeue}' then
        insert into breakers as b (provider, code, until, updated_at)
            select distinct on (a.provider) a.provider, u.code, now_ + interval '30 seconds', now_
            from unnest(ids, attempts, acts, codes, providers) u(id, no, act, code, next)
            join attempts a on a.job_id = u.id and a.no = u.no
            -- a job that stays goes to another of the provider's keys
            where (u.act = 'fail' or u.act = 'requeue' and u.next is not null) and u.code in ('auth', 'insufficient_funds', 'region_blocked')
            order by a.provider
            on conflict (provider) do update
                set code = excluded.code, updated_at = now_,
                    -- twice as long after each probe that failed too; what was already on its way counts once
                    failures = b.failures + (b.until <= now_ + interval '15 seconds')::int,
                    until = case when b.until <= now_ + interval '15 seconds'
                                 then now_ + least(interval '10 minutes', interval '30 seconds' * (2 ^ least(b.failures, 10)))
                                 else b.until end;
    end if;

    -- What comes from somebody who may not write any more is evidence on its own attempt row. A result, when kiln gave
    -- up by itself, is shown free (invariant 7).
    if acts && '{stale,finished}' then
        with late as (
            select u.*, j.state = 'failed' and j.error_code in ('outcome_unknown', 'timeout') and u.act = 'finished' and
                        u.outcome = 'delivered' and jsonb_typeof(u.artifacts) = 'array' as shown
            from unnest(ids, fences, attempts, acts, outcomes, codes, messages, provider_statuses, request_ids, costs,
                        artifacts, evidences)
                 u(id, fence, no, act, outcome, code, message, status, request_id, cost, artifacts, evidence)
            join jobs j on j.id = u.id
            join attempts a on a.job_id = u.id and a.no = u.no
            where u.act in ('stale', 'finished') and u.fence between a.fence and j.fence
        ), rows as (
            insert into artifacts (id, job_id, idx, attempt, fence, kind, mime, bytes, width, height, sha256, object, seed,
                                   revised_prompt, charged, created_at)
            select x.id, l.id, x.idx, l.no, l.fence, x.kind, x.mime, x.bytes, x.width, x.height, x.sha256, x.object,
                   x.seed, x.revised_prompt, false, now_
            from late l
            cross join lateral jsonb_to_recordset(l.artifacts) x(id uuid, idx int, kind text, mime text, bytes bigint,
                width int, height int, sha256 text, object text, seed text, revised_prompt text)
            where l.shown
            on conflict do nothing
            returning job_id
        ), told as (
            update jobs j set version = j.version + 1 where j.id in (select job_id from rows)
        )
        update attempts a set cost_microusd = case when a.state = 'closed' then coalesce(a.cost_microusd, l.cost)
                                                   else a.cost_microusd end,
                evidence = coalesce(a.evidence, '{}') || jsonb_build_object('late_' || l.fence, jsonb_strip_nulls(
                    jsonb_build_object('worker', worker, 'outcome', l.outcome, 'code', l.code, 'message', l.message,
                        'provider_status', l.status, 'request_id', l.request_id, 'cost_microusd', l.cost,
                        'artifacts', case when not l.shown then l.artifacts end, 'evidence', l.evidence)))
            from late l where a.job_id = l.id and a.no = l.no;
    end if;

    return query
        select u.o::int,
               case when u.act in ('succeed', 'fail') then 'committed' when u.act = 'requeue' then 'requeued'
                    when u.act = 'twin' then case when a.closed_by = worker and a.closed_fence = u.fence then 'mine'
                                                  else 'stale' end
                    else u.act end,
               j.state, j.version,
               case when j.state = 'queued' then greatest(0, ceil(extract(epoch from j.run_at - now_) * 1000))::bigint end
        from unnest(ids, fences, attempts, acts) with ordinality u(id, fence, no, act, o)
        left join jobs j on j.id = u.id
        left join attempts a on a.job_id = u.id and a.no = u.no
        order by u.o;
end $$;

-- verdict: returned | open | stale | finished. A job with a reference loses its holder and keeps its open attempt. One
-- that was surely not sent (`unsents`) goes back to the queue and its attempt is closed as not sent. Any other may be at
-- the provider: `open`, and nothing changes; ask kiln_start, which will say `unknown`.
create function kiln_handback(worker uuid, ids uuid[], fences bigint[], unsents boolean[])
returns table (ord int, verdict text)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    now_ constant timestamptz := kiln_now();
    acts text[];
begin
    perform 1 from jobs j where j.id = any(ids) and j.captured_mc is null order by j.id for no key update;
    perform 1 from attempts a where a.job_id = any(ids) and a.state = 'open' order by a.job_id, a.no for no key update;
    select array_agg(case
            when j.id is null or j.state in ('succeeded', 'failed', 'canceled') then 'finished'
            when j.state = 'running' and j.holder is null and j.fence = u.fence then 'returned'        -- my earlier call
            when j.state = 'queued' and a.closed_by = worker and a.closed_fence = u.fence then 'returned'
            when (j.state = 'running' and j.holder = worker and j.fence = u.fence) is not true then 'stale'
            when a.ref is not null or a.class = 'accepted' then 'waiting'
            when u.unsent then 'unsent'
            else 'open' end order by u.o)
        into acts
        from unnest(ids, fences, unsents) with ordinality u(id, fence, unsent, o)
        left join jobs j on j.id = u.id
        left join attempts a on a.job_id = j.id and a.no = j.attempt;
    update attempts a set state = 'closed', class = 'not_sent', closed_at = now_, closed_by = worker, closed_fence = u.fence
        from unnest(ids, fences, acts) u(id, fence, act)
        where a.job_id = u.id and a.state = 'open' and u.act = 'unsent';
    update jobs j set holder = null, state = case when u.act = 'unsent' then 'queued' else j.state end,
                      version = j.version + (u.act = 'unsent')::int
        from unnest(ids, acts) u(id, act) where j.id = u.id and u.act in ('waiting', 'unsent');
    return query
        select u.o::int, case when u.act in ('waiting', 'unsent') then 'returned' else u.act end
        from unnest(acts) with ordinality u(act, o) order by u.o;
end $$;

-- A worker died while it collected or stored this job, as its note in Redis says; its successor reports it once a fence.
-- verdict: counted | worker_lost (the third: the job has ended) | stale.
create function kiln_lost(worker uuid, ids uuid[], fences bigint[])
returns table (ord int, verdict text)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    acts text[];
begin
    perform 1 from jobs j where j.id = any(ids) order by j.id for no key update;
    select array_agg(case
            when j.lost_fence = u.fence and j.state = 'failed' and j.error_code = 'worker_lost' then 'lost'
            when (j.state = 'running' and j.holder = worker and j.fence = u.fence) is not true then 'stale'
            when j.lost_fence = u.fence or u.twin > 1 then 'counted'
            when j.losses + 1 >= 3 then 'end'
            else 'count' end order by u.o)
        into acts
        from (select *, row_number() over (partition by t.id order by t.o) as twin
              from unnest(ids, fences) with ordinality t(id, fence, o)) u
        left join jobs j on j.id = u.id;
    update jobs j set losses = j.losses + 1, lost_fence = u.fence
        from unnest(ids, fences, acts) u(id, fence, act) where j.id = u.id and u.act in ('count', 'end');
    perform kiln_finish(array_agg(u.id), array_agg('failed'::text), array_agg(null::int), array_agg('worker_lost'::text),
                        array_agg('three workers died storing its result'::text), array_agg(null::int))
        from unnest(ids, acts) u(id, act) where u.act = 'end';
    return query
        select u.o::int, case when u.act in ('lost', 'end') then 'worker_lost' when u.act = 'count' then 'counted'
                              else u.act end
        from unnest(acts) with ordinality u(act, o) order by u.o;
end $$;

-- Which of these providers a route should try last. One whose time is over lets one job through as the probe: the caller
-- that is told so; the next probe is 15 s later, unless that one settles it.
create function kiln_breakers(names text[]) returns table (provider text, is_open boolean)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    now_ constant timestamptz := kiln_now();
begin
    if not exists (select 1 from breakers) then
        return;
    end if;
    return query
        with probes as (
            update breakers b set until = now_ + interval '15 seconds'
                where b.provider in (select s.provider from breakers s where s.provider = any(names) and s.until <= now_
                                     order by s.provider for no key update skip locked)
                returning b.provider)
        select b.provider, not exists (select 1 from probes p where p.provider = b.provider)
        from breakers b where b.provider = any(names);
end $$;
