-- 0022_lean_batches.sql: accepting costs PostgreSQL less. A batch comes as columns instead of one document, of which each
-- value was parsed, taken out, and gathered again; and what a call that is plain inserts is known when it has been judged.

-- ---- kiln_accept ----

-- The function is taken as it stands (0018_lean_accept.sql), and the migration stops when a place is not there.
do $$
declare
    r record;
    def text;
begin
    select pg_get_functiondef(p.oid) into strict def from pg_proc p
        where p.pronamespace = current_schema()::regnamespace and p.proname = 'kiln_accept';
    for r in select * from (values
        ('    accs bigint[];
', '    accs bigint[];
    balances bigint[];          -- by row, of a plain call: what its line of the ledger says
    helds bigint[];
'),
        -- Ids are UUIDv7 of just now: as a rule nobody has one between the lowest and the highest, which is one look
        -- instead of one a row. What each account has held after each row is the running sum that the ledger wants.
        ('    select array_agg(x.acc), array_agg(x.need),
           taken = keyed and (select count(distinct u.id) from unnest(ids) u(id)) = n and coalesce(bool_and(coalesce(x.total <= x.free, false)), false)
               and not exists (select 1 from jobs j where j.id = any(ids))
        into accs, needs, plain
        from (select u.id, a.id as acc, u.units * u.unit_mc as need, a.balance - a.held as free,
                     sum(u.units * u.unit_mc) over (partition by a.id) as total
              from unnest(ids, apps, accounts, units, unit_mcs) with ordinality u(id, app, account, units, unit_mc, o)
              left join accounts a on a.app_id = u.app and a.name = u.account
              order by u.o) x;
', '    select array_agg(x.acc), array_agg(x.need), array_agg(x.balance),
           array_agg(case when x.held <= x.balance then x.held::bigint end),
           taken = keyed and coalesce(bool_and(coalesce(x.held <= x.balance, false)), false)
               and (select cardinality(s.ids) = n and
                           (not exists (select 1 from jobs j where j.id >= s.ids[1] and j.id <= s.ids[n])
                            or not exists (select 1 from jobs j where j.id = any(s.ids)))
                    from (select array_agg(distinct u.id) as ids from unnest(ids) u(id)) s)
        into accs, needs, balances, helds, plain
        from (select a.id as acc, u.units * u.unit_mc as need, a.balance,
                     a.held + sum(u.units * u.unit_mc) over (partition by a.id order by u.o) as held
              from unnest(apps, accounts, units, unit_mcs) with ordinality u(app, account, units, unit_mc, o)
              left join accounts a on a.app_id = u.app and a.name = u.account
              order by u.o) x;
'),
        ('        insert into ledger (account_id, job_id, kind, amount, balance_after, held_after, created_at)
            select accs[i], u.id, ''hold'', needs[i], a.balance,
                   (a.held + sum(needs[i]) over (partition by accs[i] order by i))::bigint, now_
            from unnest(ids) with ordinality u(id, i) join accounts a on a.id = accs[i]
            where verdicts[i] = ''new'' and needs[i] > 0
            order by accs[i], i;
', '        if plain then
            insert into ledger (account_id, job_id, kind, amount, balance_after, held_after, created_at)
                select accs[i], u.id, ''hold'', needs[i], balances[i], helds[i], now_
                from unnest(ids) with ordinality u(id, i)
                where needs[i] > 0;
        else
            insert into ledger (account_id, job_id, kind, amount, balance_after, held_after, created_at)
                select accs[i], u.id, ''hold'', needs[i], a.balance,
                       (a.held + sum(needs[i]) over (partition by accs[i] order by i))::bigint, now_
                from unnest(ids) with ordinality u(id, i) join accounts a on a.id = accs[i]
                where verdicts[i] = ''new'' and needs[i] > 0
                order by accs[i], i;
        end if;
'))
        v(was, becomes)
    loop
        if (length(def) - length(replace(def, r.was, ''))) <> length(r.was) then
            raise exception 'kiln_accept has another text than this migration expects: "%"', r.was;
        end if;
        def := replace(def, r.was, r.becomes);
    end loop;
    execute def;
end $$;

-- ---- batches ----

-- One batch, all or none, one hold a job; verdicts as in 0014_batches.sql. By column, in the order wanted, ids ascending.
-- params, inputs, metadata and extras are JSON arrays: cheaper to read than a PostgreSQL array of quoted JSON. These but
-- params, and run_ats, may be null: then no job of the batch has any. The key stands for the whole batch: it is claimed
-- here, as kiln_accept claims those of single jobs, with the first job's id, and kiln_accept itself gets none.
create function kiln_accept_batch(batch uuid, app uuid, key text, hash text, max_queued int, ids uuid[], accounts text[],
                                  operations text[], providers text[], params jsonb, inputs jsonb, units int[],
                                  unit_mcs bigint[], price_versions text[], priorities int[], run_ats timestamptz[],
                                  deadlines_s int[], on_unknowns text[], metadata jsonb, extras jsonb)
returns table (verdict text, batch_id uuid, created_at timestamptz, needed bigint, available bigint)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    now_ constant timestamptz := kiln_now();
    n constant int := cardinality(ids);
    of_params constant jsonb[] := array(select e from jsonb_array_elements(params) e);
    of_inputs jsonb[];
    of_metadata jsonb[];
    of_extras jsonb[];
    k record;
    v record;
begin
    if kiln_accept_batch.key is not null then
        insert into idempotency as i (app_id, key, body_hash, job_id, created_at, expires_at)
            values (app, kiln_accept_batch.key, hash, ids[1], now_, now_ + interval '24 hours')
            on conflict (app_id, key) do update
                set body_hash = excluded.body_hash, job_id = excluded.job_id,
                    created_at = excluded.created_at, expires_at = excluded.expires_at
                where i.expires_at <= now_;
        select i.body_hash, i.job_id, j.batch_id as of_batch, j.created_at as made into k
            from idempotency i left join jobs j on j.id = i.job_id
            where i.app_id = app and i.key = kiln_accept_batch.key;
        if k.job_id <> ids[1] then
            verdict := case when k.body_hash = hash then 'replayed' else 'mismatch' end;
            batch_id := k.of_batch;
            created_at := k.made;
            return next;
            return;
        end if;
    end if;

    if inputs is not null then
        of_inputs := array(select nullif(e, 'null') from jsonb_array_elements(inputs) e);
    end if;
    if metadata is not null then
        of_metadata := array(select nullif(e, 'null') from jsonb_array_elements(metadata) e);
    end if;
    if extras is not null then
        of_extras := array(select nullif(e, 'null') from jsonb_array_elements(extras) e);
    end if;
    -- The first that was not taken speaks for all: they share its verdict.
    select r.verdict, r.created_at, r.needed, r.available into v
        from kiln_accept(ids, array_fill(app, array[n]), accounts, null, null, operations, providers, of_params,
                         of_inputs, units, unit_mcs, price_versions, priorities, run_ats, deadlines_s, on_unknowns,
                         of_metadata, null, array_fill(batch, array[n]), max_queued, of_extras) r
        order by r.verdict = 'accepted', r.available, r.ord limit 1;
    if v.verdict <> 'accepted' and kiln_accept_batch.key is not null then
        delete from idempotency i
            where i.app_id = app and i.key = kiln_accept_batch.key and i.job_id = ids[1];
    end if;
    return query select v.verdict, batch, v.created_at, v.needed, v.available;
end $$;

-- One plan a session, made of index look-ups: 0007_plans.sql says why. kiln_accept has kept its settings.
do $$
declare
    f regprocedure;
    s text;
begin
    for f in select p.oid::regprocedure from pg_proc p
             where p.pronamespace = current_schema()::regnamespace and p.proname = 'kiln_accept_batch'
    loop
        foreach s in array array['plan_cache_mode = force_generic_plan', 'enable_seqscan = off', 'enable_hashjoin = off',
                                 'enable_mergejoin = off', 'jit = off'] loop
            execute format('alter function %s set %s', f, s);
        end loop;
    end loop;
end $$;
