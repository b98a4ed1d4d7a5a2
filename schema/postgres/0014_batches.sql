-- 0014_batches.sql: many jobs in one transaction, and what has become of them. A batch has no row of its own: it is the
-- jobs that carry its id, and every number about it is counted from them.

create index jobs_of_batch on jobs (batch_id, id) where batch_id is not null;
drop index jobs_batch;

-- One batch, all or none, one hold a job. `jobs_`: a JSON array of objects, in the order wanted, with the members of the
-- record below; ids ascending. The key stands for the whole batch: it is claimed here, as kiln_accept claims those of
-- single jobs, with the first job's id, and kiln_accept itself gets none.
-- verdict: accepted | replayed (batch is the earlier one) | mismatch | insufficient | queue_full. Asking again with the
-- same ids (a reply was lost) answers `accepted` with the first created_at.
create function kiln_accept_batch(batch uuid, app uuid, key text, hash text, jobs_ jsonb, max_queued int)
returns table (verdict text, batch_id uuid, created_at timestamptz, needed bigint, available bigint)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    now_ constant timestamptz := kiln_now();
    n constant int := jsonb_array_length(jobs_);
    first_id constant uuid := (jobs_ -> 0 ->> 'id')::uuid;
    a record;
    k record;
    v record;
begin
    if kiln_accept_batch.key is not null then
        insert into idempotency as i (app_id, key, body_hash, job_id, created_at, expires_at)
            values (app, kiln_accept_batch.key, hash, first_id, now_, now_ + interval '24 hours')
            on conflict (app_id, key) do update
                set body_hash = excluded.body_hash, job_id = excluded.job_id,
                    created_at = excluded.created_at, expires_at = excluded.expires_at
                where i.expires_at <= now_;
        select i.body_hash, i.job_id, j.batch_id as of_batch, j.created_at as made into k
            from idempotency i left join jobs j on j.id = i.job_id
            where i.app_id = app and i.key = kiln_accept_batch.key;
        if k.job_id <> first_id then
            verdict := case when k.body_hash = hash then 'replayed' else 'mismatch' end;
            batch_id := k.of_batch;
            created_at := k.made;
            return next;
            return;
        end if;
    end if;

    select array_agg(x.id order by x.o) as ids, array_agg(x.account order by x.o) as accounts,
           array_agg(x.operation order by x.o) as operations, array_agg(x.provider order by x.o) as providers,
           array_agg(x.params order by x.o) as params, array_agg(x.inputs order by x.o) as inputs,
           array_agg(x.units order by x.o) as units, array_agg(x.unit_mc order by x.o) as unit_mcs,
           array_agg(x.price_version order by x.o) as price_versions, array_agg(x.priority order by x.o) as priorities,
           array_agg(x.run_at order by x.o) as run_ats, array_agg(x.deadline_s order by x.o) as deadlines_s,
           array_agg(x.on_unknown order by x.o) as on_unknowns, array_agg(x.metadata order by x.o) as metadata,
           array_agg(x.extras order by x.o) as extras
        into a
        from rows from (jsonb_to_recordset(jobs_) as (id uuid, account text, operation text, provider text, params jsonb,
                            inputs jsonb, units int, unit_mc bigint, price_version text, priority int, run_at timestamptz,
                            deadline_s int, on_unknown text, metadata jsonb, extras jsonb)) with ordinality
             x(id, account, operation, provider, params, inputs, units, unit_mc, price_version, priority, run_at,
               deadline_s, on_unknown, metadata, extras, o);
    -- The first that was not taken speaks for all: they share its verdict.
    select r.verdict, r.created_at, r.needed, r.available into v
        from kiln_accept(a.ids, array_fill(app, array[n]), a.accounts, array_fill(null::text, array[n]),
                         array_fill(null::text, array[n]), a.operations, a.providers, a.params, a.inputs, a.units,
                         a.unit_mcs, a.price_versions, a.priorities, a.run_ats, a.deadlines_s, a.on_unknowns, a.metadata,
                         array_fill(null::uuid, array[n]), array_fill(batch, array[n]), max_queued, a.extras) r
        order by r.verdict = 'accepted', r.available, r.ord limit 1;
    if v.verdict <> 'accepted' and kiln_accept_batch.key is not null then
        delete from idempotency i
            where i.app_id = app and i.key = kiln_accept_batch.key and i.job_id = first_id;
    end if;
    return query select v.verdict, batch, v.created_at, v.needed, v.available;
end $$;

-- What GET /v1/batches/{id} shows; null: this app has no such batch.
create function kiln_batch_json(batch uuid, app uuid, with_ids boolean) returns jsonb
language plpgsql volatile as $$
declare
    doc jsonb;
begin
    select jsonb_build_object(
               'id', batch, 'total', count(*),
               'queued', count(*) filter (where j.state = 'queued'), 'running', count(*) filter (where j.state = 'running'),
               'succeeded', count(*) filter (where j.state = 'succeeded'),
               'failed', count(*) filter (where j.state = 'failed'),
               'canceled', count(*) filter (where j.state = 'canceled'),
               'account', case when min(j.account) = max(j.account) then min(j.account) end,
               'held_mc', coalesce(sum(j.hold_mc) filter (where j.captured_mc is null), 0),
               'captured_mc', coalesce(sum(j.captured_mc), 0),
               'created_at', kiln_time(min(j.created_at)),
               'finished_at', case when bool_and(j.finished_at is not null) then kiln_time(max(j.finished_at)) end)
           || case when with_ids then jsonb_build_object('job_ids', jsonb_agg(j.id order by j.id)) else '{}' end
        into doc
        from jobs j where j.batch_id = batch and j.app_id = app
        having count(*) > 0;
    return doc;
end $$;

-- kiln_jobs_page, of one batch alone.
create function kiln_batch_page(app uuid, account text, state text, operation text, before uuid, max int, batch uuid)
returns table (doc jsonb)
language plpgsql volatile set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
begin
    return query
        select kiln_job_doc(j) from jobs j
        where j.batch_id = batch and j.app_id = app and (before is null or j.id < before)
          and (kiln_batch_page.account is null or j.account = kiln_batch_page.account)
          and (kiln_batch_page.state is null or j.state = kiln_batch_page.state)
          and (kiln_batch_page.operation is null or j.operation = kiln_batch_page.operation)
        order by j.id desc limit max;
end $$;

do $$
declare
    f regprocedure;
    s text;
begin
    for f in select p.oid::regprocedure from pg_proc p
             where p.pronamespace = current_schema()::regnamespace and p.proname in ('kiln_accept_batch', 'kiln_batch_json')
    loop
        foreach s in array array['plan_cache_mode = force_generic_plan', 'enable_seqscan = off', 'enable_hashjoin = off',
                                 'enable_mergejoin = off', 'jit = off'] loop
            execute format('alter function %s set %s', f, s);
        end loop;
    end loop;
end $$;
