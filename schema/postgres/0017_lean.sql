-- 0017_lean.sql: the same answers for less work of PostgreSQL. What a job costs here is mostly index entries: each update that
-- touches a column of an index, or of an index's condition, makes a new entry in every one. So no index of jobs speaks of
-- anything that start writes (state, holder, fence, attempt, version, started_at), and start's update stays in its page (HOT).
-- An open job is one without `finished_at`, which a CHECK and kiln_finish make the same; queries say so, and then name the
-- state. Look-ups by id say `captured_mc is null` instead, lest a partial index be taken for a short list (0007_plans.sql).

create or replace function kiln_now() returns timestamptz language plpgsql volatile as $$ -- planned once a session
declare
    shift_ interval;
begin
    select shift into shift_ from clock_shift;
    return clock_timestamp() + shift_;
end $$;

-- ---- indexes ----

drop index jobs_fresh, jobs_open, jobs_deadline, jobs_queued, jobs_failed, jobs_holder, jobs_cache_lead, jobs_cache_wait,
           jobs_cache_entry, jobs_app, jobs_account;
create index jobs_app on jobs (app_id, id);                     -- read backwards; entries come in their order, pages fill
create index jobs_account on jobs (account_id, id);
create index jobs_open on jobs (id) where finished_at is null;
create index jobs_deadline on jobs (deadline_at) where finished_at is null;
create index jobs_queued on jobs (provider, app_id) where finished_at is null; -- running ones too
create index jobs_failed on jobs (finished_at, id) where delivered = 0;        -- and canceled ones
create unique index jobs_cache_lead on jobs (app_id, cache_key)
    where cache_key is not null and finished_at is null and blocked_by is null;
create index jobs_cache_wait on jobs (app_id, cache_key, id)
    where cache_key is not null and finished_at is null and blocked_by is not null;
create index jobs_cache_entry on jobs (app_id, cache_key, finished_at) where cache_key is not null and delivered > 0;
alter table jobs set (fillfactor = 50);                         -- room for the second version of a whole page of jobs

-- Who holds a job, where it is looked up: jobs.holder of each open attempt.
alter table attempts add column holder uuid;
update attempts a set holder = j.holder from jobs j where j.id = a.job_id and a.state = 'open' and j.holder is not null;
create index attempts_holder on attempts (holder, job_id) where closed_at is null; -- open; in words that no look-up by id uses

create or replace function kiln_held(worker uuid, after_id uuid, max int)
returns table (id uuid, fence bigint, attempt int, ref text)
language plpgsql volatile set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
begin
    return query
        select j.id, j.fence, j.attempt, a.ref
        from attempts a join jobs j on j.id = a.job_id
        where a.closed_at is null and a.holder = worker and (after_id is null or a.job_id > after_id)
        order by a.job_id limit max;
end $$;

-- ---- what rows may say ----

-- The same as before in fewer words, since each is asked at each write of a row; an open job has no `finished_at`, too.
alter table jobs drop constraint jobs_state_check, drop constraint jobs_check2, drop constraint jobs_check3,
    add constraint jobs_state check (case
        when state in ('queued', 'running')
            then captured_mc is null and finished_at is null and (holder is null or state = 'running')
        else state in ('succeeded', 'failed', 'canceled') and captured_mc is not null and finished_at is not null and
             holder is null end);
alter table attempts drop constraint attempts_state_check, drop constraint attempts_check, drop constraint attempts_check1,
    add constraint attempts_state check (case state when 'open' then closed_at is null
                                                    when 'closed' then closed_at is not null and class is not null
                                                    else false end);
alter table ledger drop constraint ledger_kind_check, drop constraint ledger_check, drop constraint ledger_check2,
    add constraint ledger_row check (case
        when kind in ('hold', 'capture', 'release', 'refund') then amount > 0 and job_id is not null
        when kind = 'grant' then amount > 0
        when kind = 'adjust' then amount <> 0
        else false end);

-- ---- end, start, settle ----

drop function kiln_finish(uuid[], text[], int[], text[], text[], int[]);

-- As in 0003_run.sql; `closed`: the caller has closed the attempts.
create function kiln_finish(ids uuid[], states text[], units_ int[], codes text[], messages text[], statuses int[],
                            closed boolean default false)
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
    if not closed then
        update attempts a set state = 'closed', class = coalesce(a.class, 'unknown'), closed_at = now_
            where a.job_id = any(ids) and a.state = 'open';
    end if;

    if exists (select 1 from jobs j where j.blocked_by && ids) then
        perform 1 from jobs j where j.blocked_by && ids order by j.id for no key update;
        update jobs j set version = j.version + 1,
                          blocked_by = nullif(array(select b from unnest(j.blocked_by) b where b <> all(ids)), '{}')
            where j.blocked_by && ids;
    end if;

    perform 1 from accounts a where a.id in (select j.account_id from jobs j where j.id = any(ids))
        order by a.id for no key update;

    with x as (
        update jobs j set state = states[o], holder = null, version = j.version + 1, finished_at = now_,
                          delivered = case when states[o] = 'succeeded' then coalesce(units_[o], j.units) else 0 end,
                          captured_mc = case when states[o] = 'succeeded'
                              then least(greatest(coalesce(units_[o], j.units), 0), j.units) *
                                   case when j.extras is null then j.unit_mc
                                        else kiln_charge_mc(j.extras, j.provider, j.unit_mc) end else 0 end,
                          error_code = codes[o], error_message = messages[o], provider_status = statuses[o]
        from unnest(ids) with ordinality u(id, o)     -- the others by subscript: unnest() keeps each array in a store
        where j.id = u.id and j.captured_mc is null
        returning j.id, j.account_id, j.hold_mc as hold, j.captured_mc as captured, j.webhook, j.state, o
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

-- As in 0003_run.sql; a call whose jobs all wait in the queue reads nothing but them.
create or replace function kiln_start(worker uuid, ids uuid[], unsents boolean[], note_attempts int[], notes jsonb[])
returns table (ord int, verdict text, fence bigint, attempt int, ref text, remaining_ms bigint, unknowns int, tries int,
               attempt_age_ms bigint, provider text)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    now_ timestamptz;
    acts text[];
    refs text[];
    fences bigint[];
    numbers int[];
    lanes text[];
    deadlines timestamptz[];
    unknowns_ int[];
    tries_ int[];
    plain boolean;              -- every job is queued, each named once
    latest timestamptz;
begin
    select array_agg(x.fence + 1), array_agg(x.attempt + 1), array_agg(x.provider), array_agg(x.deadline_at),
           array_agg(x.unknowns), array_agg(x.tries), max(x.run_at),
           count(*) = cardinality(ids) and bool_and(x.waits) and
               (select count(distinct u.id) from unnest(ids) u(id)) = cardinality(ids) -- beside them it would sort the arrays
        into fences, numbers, lanes, deadlines, unknowns_, tries_, latest, plain
        from (select l.* from (
                  select u.o, j.id, j.fence, j.attempt, j.provider, j.deadline_at, j.unknowns, j.tries, j.run_at,
                         j.state = 'queued' and j.blocked_by is null as waits
                  from unnest(ids) with ordinality u(id, o) join jobs j on j.id = u.id
                  where j.captured_mc is null
                  order by j.id for no key update of j) l
              order by l.o) x;
    now_ := kiln_now();
    perform 1 from workers w where w.id = worker and w.dead_at is null;
    if not found then                                           -- 0: beat first
        return query select u.o::int, 'dead', null::bigint, null::int, null::text, null::bigint, null::int, null::int,
                            null::bigint, null::text
            from unnest(ids) with ordinality u(id, o) order by u.o;
        return;
    end if;

    if plain and coalesce(latest <= now_, true) then            -- 2, for all of them: nothing more to read
        update jobs j set fence = j.fence + 1, holder = worker, state = 'running', attempt = j.attempt + 1,
                          version = j.version + 1, started_at = coalesce(j.started_at, now_)
            from unnest(ids) u(id) where j.id = u.id;
        insert into attempts (job_id, no, fence, provider, holder, opened_at)
            select u.id, u.no, u.fence, u.provider, worker, now_
            from unnest(ids, numbers, fences, lanes) u(id, no, fence, provider) order by u.id;
        return query
            select u.o::int, 'go', u.fence, u.no, null::text,
                   greatest(0, floor(extract(epoch from u.deadline_at - now_) * 1000))::bigint, u.unknowns, u.tries,
                   0::bigint, u.provider
            from unnest(fences, numbers, deadlines, unknowns_, tries_, lanes) with ordinality
                 u(fence, no, deadline_at, unknowns, tries, provider, o);
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
    if acts && '{resume,adopt,settle,unknown}' then
        update attempts a set holder = worker
            from unnest(ids, acts) u(id, act)
            where a.job_id = u.id and a.state = 'open' and u.act in ('resume', 'adopt', 'settle', 'unknown');
    end if;
    insert into attempts (job_id, no, fence, provider, holder, opened_at)
        select j.id, j.attempt, j.fence, j.provider, worker, now_
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

-- As in 0003_run.sql; of a call that may write all it brings, only the jobs are read to judge it.
create or replace function kiln_settle(worker uuid, ids uuid[], fences bigint[], attempts int[], outcomes text[], codes text[],
                            classes text[], messages text[], provider_statuses int[], request_ids text[], units int[],
                            costs bigint[], delays_ms bigint[], counts boolean[], artifacts jsonb[], evidences jsonb[],
                            providers text[])
returns table (ord int, verdict text, state text, version int, run_delay_ms bigint)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    now_ timestamptz;
    acts text[];                -- succeed | fail | requeue; or mine | stale | finished | twin
    versions int[];
    plain boolean;              -- all of it may be written: `W`, each job named once
    done int;
begin
    if not outcomes <@ '{delivered,failed,retry,unknown}' or array_position(outcomes, null) is not null then
        raise exception 'kiln_settle: no such outcome' using errcode = 'invalid_parameter_value';
    end if;
    select array_agg(x.act), array_agg(x.version),
           count(*) = cardinality(ids) and bool_and(coalesce(x.mine, false)) and
               (select count(distinct u.id) from unnest(ids) u(id)) = cardinality(ids) -- beside them it would sort the arrays
        into acts, versions, plain
        from (select l.* from (
                  select u.o, j.id, j.version,
                         j.state = 'running' and j.holder = worker and j.fence = u.fence and j.attempt = u.no as mine,
                         case when u.outcome = 'delivered' then 'succeed'
                              when u.outcome = 'retry' and (not coalesce(u.counts, true) or j.tries + 1 < 5) then 'requeue'
                              when u.outcome = 'unknown' and j.on_unknown = 'retry' and j.unknowns = 0 then 'requeue'
                              else 'fail' end as act
                  from unnest(ids, fences, attempts, outcomes, counts) with ordinality u(id, fence, no, outcome, counts, o)
                  join jobs j on j.id = u.id
                  order by j.id for no key update of j) l
              order by l.o) x;
    -- The attempts of those are the open ones, and nobody writes these without the jobs' locks.
    if plain is not true then
        perform 1 from attempts a where (a.job_id, a.no) in (select u.id, u.no from unnest(ids, attempts) u(id, no))
            order by a.job_id, a.no for no key update;
    end if;
    now_ := kiln_now();

    if plain is not true then
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
    end if;

    if acts && '{succeed,fail,requeue}' then
        update attempts a set state = 'closed', closed_at = now_, closed_by = worker, closed_fence = fences[i],
                class = case when outcomes[i] = 'unknown' then 'unknown'
                             else coalesce(classes[i], case outcomes[i] when 'retry' then 'refused' else 'answered' end) end,
                error_code = case when outcomes[i] <> 'delivered' then codes[i] end, message = messages[i],
                provider_status = provider_statuses[i], request_id = coalesce(request_ids[i], a.request_id),
                cost_microusd = coalesce(costs[i], a.cost_microusd),
                evidence = case when evidences[i] is null then a.evidence
                                else coalesce(a.evidence, '{}') || evidences[i] end
            from unnest(ids) with ordinality u(id, i)
            where a.job_id = u.id and a.no = attempts[i] and a.state = 'open' and
                  acts[i] in ('succeed', 'fail', 'requeue');
        get diagnostics done = row_count;
        if plain and done <> cardinality(ids) then
            raise exception 'kiln_settle: % of % attempts were open', done, cardinality(ids) using errcode = 'internal_error';
        end if;
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
                                   revised_prompt, blurhash, color, created_at)
                select x.id, u.id, x.idx, u.no, u.fence, x.kind, x.mime, x.bytes, x.width, x.height, x.sha256, x.object,
                       x.seed, x.revised_prompt, x.blurhash, x.color, now_
                from unnest(ids, fences, attempts, acts, artifacts) u(id, fence, no, act, artifacts)
                cross join lateral jsonb_to_recordset(u.artifacts) x(id uuid, idx int, kind text, mime text, bytes bigint,
                    width int, height int, sha256 text, object text, seed text, revised_prompt text, blurhash text, color text)
                where u.act = 'succeed' and jsonb_typeof(u.artifacts) = 'array';
        end if;
        perform kiln_finish(array_agg(u.id), array_agg(case u.act when 'succeed' then 'succeeded' else 'failed' end),
                            array_agg(case when u.act = 'succeed' then u.units end),
                            array_agg(case when u.act = 'succeed' then null when u.outcome = 'unknown' then 'outcome_unknown'
                                           else coalesce(u.code, 'provider_error') end),
                            array_agg(case when u.act = 'fail' then u.message end),
                            array_agg(case when u.act = 'fail' then u.status end), true)
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
                                   revised_prompt, blurhash, color, charged, created_at)
            select x.id, l.id, x.idx, l.no, l.fence, x.kind, x.mime, x.bytes, x.width, x.height, x.sha256, x.object,
                   x.seed, x.revised_prompt, x.blurhash, x.color, false, now_
            from late l
            cross join lateral jsonb_to_recordset(l.artifacts) x(id uuid, idx int, kind text, mime text, bytes bigint,
                width int, height int, sha256 text, object text, seed text, revised_prompt text, blurhash text, color text)
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

    if plain and not 'requeue' = any(acts) then
        return query
            select u.o::int, 'committed', case u.act when 'succeed' then 'succeeded' else 'failed' end, u.version + 1,
                   null::bigint
            from unnest(acts, versions) with ordinality u(act, version, o);
        return;
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

-- ---- the same words elsewhere ----

-- Each function is taken as it stands, and the migration stops when a place is not there.
do $$
declare
    r record;
    def text;
begin
    for r in select * from (values
        ('kiln_unpublished', 'j.state in (''queued'', ''running'') and', 'j.finished_at is null and', 2),
        ('kiln_expire', 'j.state in (''queued'', ''running'') and', 'j.finished_at is null and', 1),
        ('kiln_failed_page', 'where j.state = ''failed'' and', 'where j.state = ''failed'' and j.delivered = 0 and', 1),
        ('kiln_beat', 'from jobs j where j.state = ''running'' and j.holder = w.id',
         'from attempts a where a.closed_at is null and a.holder = w.id', 1),
        ('kiln_handback', '    update jobs j set holder = null,',
         '    update attempts a set holder = null from unnest(ids, acts) u(id, act)
        where a.job_id = u.id and a.state = ''open'' and u.act = ''waiting'';
    update jobs j set holder = null,', 1),
        ('kiln_accept_cached', 'l.state in (''queued'', ''running'') and', 'l.finished_at is null and', 1),
        ('kiln_cache_settle', 'l.state in (''queued'', ''running'') and', 'l.finished_at is null and', 2),
        ('kiln_cache_settle', 'j.state = ''queued'' and', 'j.state = ''queued'' and j.finished_at is null and', 3),
        ('kiln_cache_entry', 'x.state = ''succeeded''', 'x.state = ''succeeded'' and x.delivered > 0', 1),
        ('kiln_cache_objects', 'x.state = ''succeeded''', 'x.state = ''succeeded'' and x.delivered > 0', 1),
        ('kiln_audit', 'union all
select ''attempt.job'',', 'union all
select ''attempt.holder'', a.job_id || '' no '' || a.no, coalesce(j.holder::text, ''none''), coalesce(a.holder::text, ''none'')
    from attempts a join jobs j on j.id = a.job_id where a.state = ''open'' and a.holder is distinct from j.holder
union all
select ''attempt.job'',', 1))
        v(name, was, becomes, times)
    loop
        select pg_get_functiondef(p.oid) into strict def from pg_proc p
            where p.pronamespace = current_schema()::regnamespace and p.proname = r.name;
        if (length(def) - length(replace(def, r.was, ''))) / length(r.was) <> r.times then
            raise exception '% has another text than this migration expects: "%"', r.name, r.was;
        end if;
        execute replace(def, r.was, r.becomes);
    end loop;
end $$;

-- One plan a session, made of index look-ups: 0007_plans.sql says why.
do $$
declare
    f regprocedure;
    s text;
begin
    for f in select p.oid::regprocedure from pg_proc p
             where p.pronamespace = current_schema()::regnamespace and p.proname in ('kiln_finish', 'kiln_start',
                   'kiln_settle')
    loop
        foreach s in array array['plan_cache_mode = force_generic_plan', 'enable_seqscan = off', 'enable_hashjoin = off',
                                 'enable_mergejoin = off', 'jit = off'] loop
            execute format('alter function %s set %s', f, s);
        end loop;
    end loop;
end $$;
