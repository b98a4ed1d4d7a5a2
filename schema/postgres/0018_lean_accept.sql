-- 0018_lean_accept.sql: kiln_accept as in 0002_accept.sql, but nearly every call is judged at once instead of row by row.

create or replace function kiln_accept(ids uuid[], apps uuid[], accounts text[], keys text[], hashes text[], operations text[],
                            providers text[], params jsonb[], inputs jsonb[], units int[], unit_mcs bigint[],
                            price_versions text[], priorities int[], run_ats timestamptz[], deadlines_s int[],
                            on_unknowns text[], metadata jsonb[], retry_ofs uuid[], batches uuid[], max_queued int,
                            extras jsonb[] default null)
returns table (ord int, verdict text, job uuid, created_at timestamptz, needed bigint, available bigint)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    n constant int := coalesce(array_length(ids, 1), 0);
    now_ constant timestamptz := kiln_now();
    r record;
    w int;
    v text;
    free bigint;
    again boolean;
    refused text[];             -- by batch (index: the first row of it): why it cannot be taken
    fresh int[] := '{}';        -- first rows of keys that this call has put in
    winner int[];               -- by key (index: its first row): the row that became the job
    money bigint[];             -- by account (index: its first row): what is still free
    room int[];                 -- by app and provider (index: first row): how many more may queue
    verdicts text[];            -- `new` inside, `accepted` outside
    jobs_ uuid[];
    made timestamptz[];
    needs bigint[];
    frees bigint[];
    accs bigint[];
    keyed constant int := coalesce(cardinality(array_remove(keys, null)), 0);
    taken int := 0;             -- keys that this call has put in
    plain boolean;              -- every row is new and can be paid: nothing to judge
begin
    if n = 0 then
        return;
    end if;

    -- 1. Keys, in sorted order. A twin in another call waits here until we commit, and then finds our row.
    if keyed > 0 then
        insert into idempotency as k (app_id, key, body_hash, job_id, created_at, expires_at)
            select distinct on (u.app, u.key collate "C") u.app, u.key, u.hash, u.id, now_, now_ + interval '24 hours'
            from unnest(apps, keys, hashes, ids) with ordinality u(app, key, hash, id, o)
            where u.key is not null
            order by u.app, u.key collate "C", u.o
            on conflict (app_id, key) do update
                set body_hash = excluded.body_hash, job_id = excluded.job_id,
                    created_at = excluded.created_at, expires_at = excluded.expires_at
                where k.expires_at <= now_;
        get diagnostics taken = row_count;
    end if;

    -- 2. Accounts. Whatever follows is read under these locks, also whether the job ids are new: a first copy of this
    --    very call that is still at work holds them.
    perform 1 from accounts a
        where (a.app_id, a.name) in (select u.app, u.account from unnest(apps, accounts) u(app, account))
        order by a.id for no key update;

    -- 3. What nearly every call is: ids that nobody has used, keys that are all this call's, and money and room for all of
    --    it together, hence for each row in its turn. Open jobs are counted here, which are never fewer than the queued.
    select array_agg(x.acc), array_agg(x.need),
           taken = keyed and (select count(distinct u.id) from unnest(ids) u(id)) = n and coalesce(bool_and(coalesce(x.total <= x.free, false)), false)
               and not exists (select 1 from jobs j where j.id = any(ids))
        into accs, needs, plain
        from (select u.id, a.id as acc, u.units * u.unit_mc as need, a.balance - a.held as free,
                     sum(u.units * u.unit_mc) over (partition by a.id) as total
              from unnest(ids, apps, accounts, units, unit_mcs) with ordinality u(id, app, account, units, unit_mc, o)
              left join accounts a on a.app_id = u.app and a.name = u.account
              order by u.o) x;
    if plain and max_queued is not null then
        plain := (select bool_and((select count(*) from (select 1 from jobs x where x.finished_at is null and
                                       x.provider = p.provider and x.app_id = p.app limit max_queued) y) + p.n <= max_queued)
                  from (select u.app, u.provider, count(*) as n from unnest(apps, providers) u(app, provider)
                        group by u.app, u.provider) p);
    end if;
    if plain then
        verdicts := array_fill('new'::text, array[n]);
        jobs_ := ids;
        made := array_fill(now_, array[n]);
    else
        -- Else judge in the order of arrival. A refused batch is taken out and the rest judged anew.
        refused := array_fill(null::text, array[n]);
        loop
            again := false;
            verdicts := array_fill(null::text, array[n]);
            jobs_ := ids;
            made := array_fill(now_, array[n]);
            needs := array_fill(0::bigint, array[n]);
            frees := array_fill(null::bigint, array[n]);
            accs := array_fill(null::bigint, array[n]);
            winner := array_fill(null::int, array[n]);
            money := array_fill(null::bigint, array[n]);
            room := array_fill(null::int, array[n]);
            fresh := '{}';

            for r in
                select u.o::int as o, u.id, u.app, u.key, u.hash, u.batch,
                       u.units * u.unit_mc as need, a.id as acc, a.balance - a.held as free,
                       j.created_at as made, j.app_id as made_app,
                       k.job_id as key_job, k.body_hash as key_hash, kj.created_at as key_made,
                       min(u.o) over (partition by u.id) as id_no,
                       min(u.o) over (partition by a.id) as acc_no,
                       case when u.key is not null then min(u.o) over (partition by u.app, u.key) end as key_no,
                       case when u.batch is not null then min(u.o) over (partition by u.batch) end as batch_no,
                       case when u.batch is not null then sum(u.units * u.unit_mc) over (partition by u.batch) end as batch_need,
                       q.queued, q.no as queue_no
                from unnest(ids, apps, accounts, keys, hashes, providers, units, unit_mcs, batches) with ordinality
                     u(id, app, account, key, hash, provider, units, unit_mc, batch, o)
                left join accounts a on a.app_id = u.app and a.name = u.account
                left join jobs j on j.id = u.id
                left join idempotency k on k.app_id = u.app and k.key = u.key
                left join jobs kj on kj.id = k.job_id and k.job_id <> u.id
                left join (select p.app, p.provider, min(p.o) as no,
                                  (select count(*) from (select 1 from jobs x where x.finished_at is null and x.state = 'queued' and
                                          x.provider = p.provider and x.app_id = p.app limit max_queued) y) as queued
                           from unnest(apps, providers) with ordinality p(app, provider, o)
                           where max_queued is not null group by p.app, p.provider) q
                    on q.app = u.app and q.provider = u.provider
                order by u.o
            loop
                accs[r.o] := r.acc;
                needs[r.o] := r.need;
                if r.key is not null and r.o = r.key_no and r.key_job = r.id and r.made is null then
                    fresh := fresh || r.o;
                end if;

                if r.made is not null then                          -- this very job: a reply was lost
                    verdicts[r.o] := case when r.made_app = r.app then 'accepted' else 'mismatch' end;
                    made[r.o] := r.made;
                    continue;
                elsif r.id_no < r.o then                            -- the same id twice in one call
                    verdicts[r.o] := replace(verdicts[r.id_no], 'new', 'accepted');
                    jobs_[r.o] := jobs_[r.id_no];
                    made[r.o] := made[r.id_no];
                    frees[r.o] := frees[r.id_no];
                    continue;
                elsif r.key is not null and (r.key_job <> ids[r.key_no] or r.key_made is not null) then
                    verdicts[r.o] := case when r.key_hash = r.hash then 'replayed' else 'mismatch' end;
                    jobs_[r.o] := r.key_job;
                    made[r.o] := r.key_made;
                    continue;
                elsif r.key is not null and winner[r.key_no] is not null then
                    w := winner[r.key_no];
                    verdicts[r.o] := case when hashes[w] = r.hash then 'replayed' else 'mismatch' end;
                    jobs_[r.o] := ids[w];
                    continue;
                end if;

                free := coalesce(money[r.acc_no], r.free);
                if r.batch_no is not null and refused[r.batch_no] is not null then
                    v := refused[r.batch_no];
                elsif max_queued is not null and coalesce(room[r.queue_no], max_queued - r.queued) <= 0 then
                    v := 'queue_full';
                elsif r.acc is null or free < r.need then
                    v := 'insufficient';
                else
                    v := 'new';
                    money[r.acc_no] := free - r.need;
                    if max_queued is not null then
                        room[r.queue_no] := coalesce(room[r.queue_no], max_queued - r.queued) - 1;
                    end if;
                    if r.key is not null then
                        winner[r.key_no] := r.o;
                    end if;
                end if;
                verdicts[r.o] := v;
                if v <> 'new' then
                    made[r.o] := null;
                    frees[r.o] := coalesce(free, 0);
                    if r.batch_no is not null then
                        needs[r.o] := r.batch_need;
                        again := again or refused[r.batch_no] is null;
                        refused[r.batch_no] := coalesce(refused[r.batch_no], v);
                    end if;
                end if;
            end loop;
            exit when not again;
        end loop;
    end if;

    -- 4. Keys of refused rows are not kept; a key whose first row was refused goes to the row that was taken.
    foreach w in array fresh loop
        if winner[w] is null then
            delete from idempotency k where k.app_id = apps[w] and k.key = keys[w];
        elsif winner[w] <> w then
            update idempotency k set job_id = ids[winner[w]], body_hash = hashes[winner[w]]
                where k.app_id = apps[w] and k.key = keys[w];
        end if;
    end loop;

    -- 5. Jobs, holds, accounts.
    if 'new' = any(verdicts) then
        insert into jobs (id, app_id, account_id, account, operation, provider, params, inputs, metadata, units, unit_mc,
                          hold_mc, price_version, priority, run_at, deadline_at, on_unknown, batch_id, retry_of, extras, created_at)
            select u.id, apps[i], accs[i], accounts[i], operations[i], providers[i], params[i], inputs[i], metadata[i],
                   units[i], unit_mcs[i], needs[i], price_versions[i], coalesce(priorities[i], 0), run_ats[i],
                   greatest(now_, run_ats[i]) + make_interval(secs => deadlines_s[i]), on_unknowns[i], batches[i],
                   retry_ofs[i], extras[i], now_
            from unnest(ids) with ordinality u(id, i) -- dearer by a tenth as unnest() of so many arrays
            where verdicts[i] = 'new';
        insert into ledger (account_id, job_id, kind, amount, balance_after, held_after, created_at)
            select accs[i], u.id, 'hold', needs[i], a.balance,
                   (a.held + sum(needs[i]) over (partition by accs[i] order by i))::bigint, now_
            from unnest(ids) with ordinality u(id, i) join accounts a on a.id = accs[i]
            where verdicts[i] = 'new' and needs[i] > 0
            order by accs[i], i;
        update accounts a set held = a.held + s.need
            from (select u.acc, sum(u.need)::bigint as need from unnest(accs, needs, verdicts) u(acc, need, v)
                  where u.v = 'new' group by u.acc) s
            where a.id = s.acc and s.need > 0;
    end if;

    if plain then
        return query select i::int, 'accepted', u.id, now_, needs[i], null::bigint
            from unnest(ids) with ordinality u(id, i);
        return;
    end if;
    return query
        select u.o::int, replace(u.v, 'new', 'accepted'),
               case when u.v in ('new', 'accepted', 'replayed') then u.job end,
               case when u.v in ('new', 'accepted', 'replayed') then u.made end, u.need, u.free
        from unnest(verdicts, jobs_, made, needs, frees) with ordinality u(v, job, made, need, free, o)
        order by u.o;
end $$;

-- As in 0014_batches.sql, but its rows are put in order once, not once a column.
create or replace function kiln_accept_batch(batch uuid, app uuid, key text, hash text, jobs_ jsonb, max_queued int)
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

    select array_agg(x.id) as ids, array_agg(x.account) as accounts, array_agg(x.operation) as operations,
           array_agg(x.provider) as providers, array_agg(x.params) as params, array_agg(x.inputs) as inputs,
           array_agg(x.units) as units, array_agg(x.unit_mc) as unit_mcs, array_agg(x.price_version) as price_versions,
           array_agg(x.priority) as priorities, array_agg(x.run_at) as run_ats, array_agg(x.deadline_s) as deadlines_s,
           array_agg(x.on_unknown) as on_unknowns, array_agg(x.metadata) as metadata, array_agg(x.extras) as extras
        into a
        from (select r.* from rows from (jsonb_to_recordset(jobs_) as (id uuid, account text, operation text, provider text,
                  params jsonb, inputs jsonb, units int, unit_mc bigint, price_version text, priority int,
                  run_at timestamptz, deadline_s int, on_unknown text, metadata jsonb, extras jsonb)) with ordinality
                  r(id, account, operation, provider, params, inputs, units, unit_mc, price_version, priority, run_at,
                    deadline_s, on_unknown, metadata, extras, o)
              order by r.o) x;
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

-- One plan a session, made of index look-ups: 0007_plans.sql says why.
do $$
declare
    f regprocedure;
    s text;
begin
    for f in select p.oid::regprocedure from pg_proc p
             where p.pronamespace = current_schema()::regnamespace and p.proname in ('kiln_accept', 'kiln_accept_batch')
    loop
        foreach s in array array['plan_cache_mode = force_generic_plan', 'enable_seqscan = off', 'enable_hashjoin = off',
                                 'enable_mergejoin = off', 'jit = off'] loop
            execute format('alter function %s set %s', f, s);
        end loop;
    end loop;
end $$;
