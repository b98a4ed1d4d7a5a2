-- 0008_admin.sql: what operators ask for over the API: dead letters and their retry, exposure, lanes, switching an app
-- off.

alter table apps add column disabled_at timestamptz;            -- its keys are refused; its jobs run on

-- A failed job has at most one retry, for ever: a retry that failed is itself the one to be retried. So no command,
-- repeated or at once with another, makes two jobs of one.
create unique index jobs_retry_of on jobs (retry_of) where retry_of is not null;
create index jobs_failed on jobs (finished_at, id) where state = 'failed';

-- New jobs in place of failed ones. What the caller says is what may have changed since: provider, parameters and inputs
-- as they are checked and priced today; whose it is, priority, metadata, notes and the time it has are the failed job's own.
-- verdict: accepted | replayed (has its retry: job) | insufficient | queue_full | not_found | not_failed | delivered (a
-- late result is shown free already). Calling again with the same ids answers `accepted`. The lock on the failed jobs is
-- what makes two callers take turns; jobs come before accounts, as everywhere.
create function kiln_retry(ids uuid[], retry_ofs uuid[], providers_ text[], params_ jsonb[], inputs_ jsonb[], units_ int[],
                           unit_mcs_ bigint[], price_versions_ text[], on_unknowns_ text[], max_queued int,
                           extras_ jsonb[] default null)
returns table (ord int, verdict text, job uuid, created_at timestamptz, needed bigint, available bigint)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    r record;
    verdicts text[];
    jobs_ uuid[];
    made timestamptz[];
    firsts int[];               -- by row: the first row with the same failed job
    picked int[];               -- rows that go on to kiln_accept
    needs bigint[];
    frees bigint[];
begin
    perform 1 from jobs j where j.id = any(retry_ofs) order by j.id for no key update;
    select array_agg(x.v order by x.o), array_agg(x.id order by x.o), array_agg(x.created_at order by x.o),
           array_agg(x.first order by x.o)
        into verdicts, jobs_, made, firsts
        from (select u.o, y.id, y.created_at, min(u.o) over same as first,
                     case when s.id is null then 'not_found'
                          when y.id = u.id then 'accepted'      -- a reply was lost
                          when y.id is not null then 'replayed'
                          when s.state <> 'failed' then 'not_failed'
                          when exists (select 1 from artifacts f where f.job_id = s.id) then 'delivered'
                          when u.o > min(u.o) over same then 'twin'
                          else 'new' end as v
              from unnest(ids, retry_ofs) with ordinality u(id, retry_of, o)
              left join jobs s on s.id = u.retry_of
              left join jobs y on y.retry_of = u.retry_of
              window same as (partition by u.retry_of)) x;
    picked := array(select u.o::int from unnest(verdicts) with ordinality u(v, o) where u.v = 'new' order by u.o);
    if cardinality(picked) > 0 then
        for r in
            select a.* from (
                select array_agg(ids[p.o] order by p.n) as ids, array_agg(s.app_id order by p.n) as apps,
                       array_agg(s.account order by p.n) as accounts, array_agg(null::text order by p.n) as none,
                       array_agg(s.operation order by p.n) as operations, array_agg(providers_[p.o] order by p.n) as providers,
                       array_agg(params_[p.o] order by p.n) as params, array_agg(inputs_[p.o] order by p.n) as inputs,
                       array_agg(units_[p.o] order by p.n) as units, array_agg(unit_mcs_[p.o] order by p.n) as unit_mcs,
                       array_agg(price_versions_[p.o] order by p.n) as price_versions,
                       array_agg(s.priority order by p.n) as priorities,
                       array_agg(null::timestamptz order by p.n) as run_ats,
                       array_agg(greatest(1, extract(epoch from s.deadline_at - greatest(s.created_at, s.run_at))::int)
                                 order by p.n) as deadlines_s,
                       array_agg(on_unknowns_[p.o] order by p.n) as on_unknowns,
                       array_agg(s.metadata order by p.n) as metadata, array_agg(coalesce(extras_[p.o], s.extras) order by p.n) as extras,
                       array_agg(s.id order by p.n) as retry_ofs,
                       array_agg(null::uuid order by p.n) as batches
                from unnest(picked) with ordinality p(o, n) join jobs s on s.id = retry_ofs[p.o]) x,
            kiln_accept(ids => x.ids, apps => x.apps, accounts => x.accounts, keys => x.none, hashes => x.none,
                        operations => x.operations, providers => x.providers, params => x.params, inputs => x.inputs,
                        units => x.units, unit_mcs => x.unit_mcs, price_versions => x.price_versions,
                        priorities => x.priorities, run_ats => x.run_ats, deadlines_s => x.deadlines_s,
                        on_unknowns => x.on_unknowns, metadata => x.metadata, retry_ofs => x.retry_ofs,
                        batches => x.batches, extras => x.extras, max_queued => kiln_retry.max_queued) a
        loop
            verdicts[picked[r.ord]] := r.verdict;
            jobs_[picked[r.ord]] := r.job;
            made[picked[r.ord]] := r.created_at;
            needs[picked[r.ord]] := r.needed;
            frees[picked[r.ord]] := r.available;
        end loop;
    end if;
    return query
        select u.o::int, case when verdicts[u.o] = 'twin' then replace(verdicts[u.f], 'accepted', 'replayed')
                              else verdicts[u.o] end, jobs_[u.f], made[u.f], needs[u.f], frees[u.f]
        from unnest(firsts) with ordinality u(f, o) order by u.o;
end $$;

-- A job as operators see it: kiln_job_doc, whose it is, and what became of its retry.
create function kiln_admin_doc(j jobs, attempts boolean) returns jsonb language sql volatile as $$
    select kiln_job_doc(j) || jsonb_build_object(
        'app_name', (select p.name from apps p where p.id = j.app_id),
        'retried_by', (select y.id from jobs y where y.retry_of = j.id),
        'attempt_list', case when attempts then kiln_attempts_json(j.id) end)
$$;

-- Failed jobs of all apps, the last to end first; null filters nothing. `retried`: only those that have a retry, or none.
-- Keyset: the end and the id of the last row of the page before. What ends meanwhile comes before the first page, so a
-- walk sees no job twice, nor the retries that it makes.
create function kiln_failed_page(app text, account text, code text, operation text, provider text, since timestamptz,
                                 until timestamptz, retried boolean, before_us bigint, before_id uuid, attempts boolean,
                                 max int)
returns table (doc jsonb, cursor text)
language plpgsql volatile set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
    app_ uuid;
    before_at constant timestamptz := 'epoch'::timestamptz + before_us * interval '1 microsecond';
begin
    if app is not null then
        select p.id into app_ from apps p where p.name = app or p.id::text = lower(app);
        if app_ is null then
            return;
        end if;
    end if;
    return query
        select kiln_admin_doc(s.j, attempts),
               (extract(epoch from (s.j).finished_at) * 1000000)::bigint || '.' || (s.j).id
        from (select j from jobs j
              where j.state = 'failed' and (app_ is null or j.app_id = app_)
                and (kiln_failed_page.account is null or j.account = kiln_failed_page.account)
                and (code is null or j.error_code = code)
                and (kiln_failed_page.operation is null or j.operation = kiln_failed_page.operation)
                and (kiln_failed_page.provider is null or j.provider = kiln_failed_page.provider)
                and (since is null or j.finished_at >= since) and (until is null or j.finished_at < until)
                and (before_us is null or (j.finished_at, j.id) < (before_at, before_id))
                and (retried is null or retried = exists (select 1 from jobs y where y.retry_of = j.id))
              order by j.finished_at desc, j.id desc limit max) s;
end $$;

-- ---- exposure: what the house may have paid for nothing ----

-- Fate unknown, accepted but never delivered, answered without a result that was charged, late results, and refusals that
-- the settling worker marked with {"exposure": true}. The first line of `where` is the index's.
create view exposed as
    select j.id as job, j.app_id as app, a.no as attempt, j.operation, a.provider,
           case when a.evidence ? 'exposure' then 'marked' when a.class = 'unknown' then 'unknown'
                when a.class = 'accepted' then 'accepted' else 'uncharged' end as reason,
           j.state, coalesce(a.error_code, j.error_code) as error_code, a.ref, a.request_id, a.cost_microusd, a.closed_at,
           a.evidence
    from attempts a join jobs j on j.id = a.job_id
    where a.state = 'closed' and (a.class in ('unknown', 'accepted') or a.error_code is not null or a.evidence is not null)
      and (a.class in ('unknown', 'accepted') or a.evidence ? 'exposure'
           or (a.class = 'answered' and a.error_code = 'bad_response')
           or (a.cost_microusd > 0 and not (j.state = 'succeeded' and a.no = j.attempt)));

create or replace function kiln_exposure(max int)
returns table (job uuid, app uuid, attempt int, operation text, provider text, reason text, state text, error_code text,
               ref text, request_id text, cost_microusd bigint, closed_at timestamptz, evidence jsonb)
language plpgsql volatile set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
begin
    return query select e.* from exposed e order by e.closed_at desc limit max;
end $$;

-- One page, newest first. Keyset: when the last row closed, its job and its number.
create function kiln_exposure_page(provider text, since timestamptz, until timestamptz, before_us bigint, before_job uuid,
                                   before_no int, max int)
returns table (doc jsonb, cursor text)
language plpgsql volatile set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
    before_at constant timestamptz := 'epoch'::timestamptz + before_us * interval '1 microsecond';
begin
    return query
        select jsonb_build_object('object', 'exposure', 'job', e.job, 'app', e.app, 'attempt', e.attempt,
                   'operation', e.operation, 'provider', e.provider, 'reason', e.reason, 'state', e.state,
                   'error_code', e.error_code, 'ref', e.ref, 'request_id', e.request_id,
                   'cost_usd', e.cost_microusd / 1000000.0, 'closed_at', kiln_time(e.closed_at)),
               (extract(epoch from e.closed_at) * 1000000)::bigint || '.' || e.job || '.' || e.attempt
        from exposed e
        where (kiln_exposure_page.provider is null or e.provider = kiln_exposure_page.provider)
          and e.closed_at >= since and (until is null or e.closed_at < until)
          and (before_us is null or (e.closed_at, e.job, e.attempt) < (before_at, before_job, before_no))
        order by e.closed_at desc, e.job desc, e.attempt desc limit max;
end $$;

-- without_cost: attempts among them of which nobody knows what they cost.
create function kiln_exposure_totals(provider_ text, since timestamptz, until timestamptz)
returns table (provider text, reason text, attempts bigint, cost_microusd bigint, without_cost bigint)
language plpgsql volatile set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
begin
    return query
        select e.provider, e.reason, count(*), coalesce(sum(e.cost_microusd), 0)::bigint,
               count(*) filter (where e.cost_microusd is null)
        from exposed e
        where (provider_ is null or e.provider = provider_)
          and e.closed_at >= since and (until is null or e.closed_at < until)
        group by 1, 2 order by 1, 2;
end $$;

-- ---- lanes ----

-- Changes what `body` names and leaves the rest: concurrency, budget {count, window_ms}, paused_until ('infinity' too),
-- pause_s. null gives the catalogue's value back, or lifts the pause.
create function kiln_lane_set(name text, body jsonb) returns void
language plpgsql volatile as $$
#variable_conflict use_column
declare
    now_ constant timestamptz := kiln_now();
begin
    insert into lanes as l (name, concurrency, budget_count, budget_window_ms, paused_until, updated_at)
        values (kiln_lane_set.name, (body ->> 'concurrency')::int, (body -> 'budget' ->> 'count')::int,
                (body -> 'budget' ->> 'window_ms')::int,
                coalesce((body ->> 'paused_until')::timestamptz,
                         now_ + make_interval(secs => (body ->> 'pause_s')::float8)), now_)
        on conflict (name) do update set
            concurrency = case when body ? 'concurrency' then excluded.concurrency else l.concurrency end,
            budget_count = case when body ? 'budget' then excluded.budget_count else l.budget_count end,
            budget_window_ms = case when body ? 'budget' then excluded.budget_window_ms else l.budget_window_ms end,
            paused_until = case when body ?| '{paused_until,pause_s}' then excluded.paused_until else l.paused_until end,
            updated_at = excluded.updated_at;
end $$;

-- One plan a session, made of index look-ups: 0007_plans.sql says why.
do $$
declare
    s text;
begin
    foreach s in array array['plan_cache_mode = force_generic_plan', 'enable_seqscan = off', 'enable_hashjoin = off',
                             'enable_mergejoin = off', 'jit = off'] loop
        execute format('alter function kiln_retry set %s', s);
    end loop;
end $$;
