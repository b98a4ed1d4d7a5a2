-- 0002_accept.sql: how jobs and credits come in. kiln_accept takes all requests gathered since the last call and answers
-- each; kiln_grant does the same for credits.
--
-- The loop in kiln_accept does arithmetic only (who still fits into which balance, in the order of arrival); what is read
-- and written is one statement per table for the whole batch. How these are
-- planned is said in 0007_plans.sql.

-- verdict: accepted | replayed (job is the earlier one) | mismatch | insufficient | queue_full.
-- Calling again with the same job ids (a reply was lost) answers `accepted` with the first created_at.
-- Rows that share a batch id are all or none. Within one call the first of several rows with one key wins; the others
-- replay it, or are judged in its place when it is refused.
create function kiln_accept(ids uuid[], apps uuid[], accounts text[], keys text[], hashes text[], operations text[],
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
begin
    if n = 0 then
        return;
    end if;

    -- 1. Keys, in sorted order. A twin in another call waits here until we commit, and then finds our row.
    insert into idempotency as k (app_id, key, body_hash, job_id, created_at, expires_at)
        select distinct on (u.app, u.key collate "C") u.app, u.key, u.hash, u.id, now_, now_ + interval '24 hours'
        from unnest(apps, keys, hashes, ids) with ordinality u(app, key, hash, id, o)
        where u.key is not null
        order by u.app, u.key collate "C", u.o
        on conflict (app_id, key) do update
            set body_hash = excluded.body_hash, job_id = excluded.job_id,
                created_at = excluded.created_at, expires_at = excluded.expires_at
            where k.expires_at <= now_;

    -- 2. Accounts. Whatever follows is read under these locks, also whether the job ids are new: a first copy of this
    --    very call that is still at work holds them.
    perform 1 from accounts a
        where (a.app_id, a.name) in (select u.app, u.account from unnest(apps, accounts) u(app, account))
        order by a.id for no key update;

    -- 3. Judge, in the order of arrival. A refused batch is taken out and the rest judged anew.
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
                              (select count(*) from (select 1 from jobs x where x.state = 'queued' and
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
            select u.id, u.app, u.acc, u.account, u.operation, u.provider, u.params, u.inputs, u.metadata, u.units,
                   u.unit_mc, u.need, u.price_version, coalesce(u.priority, 0), u.run_at,
                   greatest(now_, u.run_at) + make_interval(secs => u.deadline_s), u.on_unknown, u.batch, u.retry_of, u.extras, now_
            from unnest(ids, apps, accs, accounts, operations, providers, params, inputs, metadata, units, unit_mcs, needs,
                        price_versions, priorities, run_ats, deadlines_s, on_unknowns, batches, retry_ofs, extras, verdicts)
                 u(id, app, acc, account, operation, provider, params, inputs, metadata, units, unit_mc, need,
                   price_version, priority, run_at, deadline_s, on_unknown, batch, retry_of, extras, v)
            where u.v = 'new';
        insert into ledger (account_id, job_id, kind, amount, balance_after, held_after, created_at)
            select u.acc, u.id, 'hold', u.need, a.balance,
                   (a.held + sum(u.need) over (partition by u.acc order by u.o))::bigint, now_
            from unnest(ids, accs, needs, verdicts) with ordinality u(id, acc, need, v, o)
            join accounts a on a.id = u.acc
            where u.v = 'new' and u.need > 0
            order by u.acc, u.o;
        update accounts a set held = a.held + s.need
            from (select u.acc, sum(u.need)::bigint as need from unnest(accs, needs, verdicts) u(acc, need, v)
                  where u.v = 'new' group by u.acc) s
            where a.id = s.acc and s.need > 0;
    end if;

    return query
        select u.o::int, replace(u.v, 'new', 'accepted'),
               case when u.v in ('new', 'accepted', 'replayed') then u.job end,
               case when u.v in ('new', 'accepted', 'replayed') then u.made end, u.need, u.free
        from unnest(verdicts, jobs_, made, needs, frees) with ordinality u(v, job, made, need, free, o)
        order by u.o;
end $$;

-- verdict: granted | replayed | mismatch (this reference stands for another account or amount). An account is created by
-- its first grant. The advisory locks stand for the references, as keys do in kiln_accept.
create function kiln_grant(apps uuid[], accounts text[], amounts bigint[], refs text[])
returns table (ord int, verdict text, balance bigint, held bigint)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    now_ constant timestamptz := kiln_now();
    verdicts text[];
    accs bigint[];
begin
    if array_position(refs, null) is not null then
        raise exception 'a grant needs a reference' using errcode = 'invalid_parameter_value';
    end if;
    perform pg_advisory_xact_lock(s.h)
        from (select distinct hashtextextended(u.app || '/' || u.ref, 0) as h
              from unnest(apps, refs) u(app, ref) order by 1) s;
    insert into accounts (app_id, name, created_at)
        select distinct u.app, u.account, now_
        from (select distinct on (g.app, g.ref) g.* from unnest(apps, accounts, refs) with ordinality g(app, account, ref, o)
              order by g.app, g.ref, g.o) u
        where not exists (select 1 from ledger l where l.app_id = u.app and l.reference = u.ref)
          and not exists (select 1 from accounts a where a.app_id = u.app and a.name = u.account)
        order by u.app, u.account
        on conflict (app_id, name) do nothing;
    perform 1 from accounts a
        where (a.app_id, a.name) in (select u.app, u.account from unnest(apps, accounts) u(app, account))
        order by a.id for no key update;

    -- Against what the reference already stands for: an earlier row of the ledger, else its first row in this call.
    select array_agg(x.v order by x.o), array_agg(x.acc order by x.o) into verdicts, accs
        from (select u.o, a.id as acc,
                     case when l.id is not null then
                              case when l.account_id = a.id and l.amount = u.amount then 'replayed' else 'mismatch' end
                          when u.o = min(u.o) over same then 'granted'
                          when a.id = first_value(a.id) over (same order by u.o) and
                               u.amount = first_value(u.amount) over (same order by u.o) then 'replayed'
                          else 'mismatch' end as v
              from unnest(apps, accounts, amounts, refs) with ordinality u(app, account, amount, ref, o)
              left join accounts a on a.app_id = u.app and a.name = u.account
              left join ledger l on l.app_id = u.app and l.reference = u.ref
              window same as (partition by u.app, u.ref)) x;

    insert into ledger (account_id, kind, amount, balance_after, held_after, reference, app_id, created_at)
        select u.acc, 'grant', u.amount, (a.balance + sum(u.amount) over (partition by u.acc order by u.o))::bigint,
               a.held, u.ref, u.app, now_
        from unnest(apps, accs, amounts, refs, verdicts) with ordinality u(app, acc, amount, ref, v, o)
        join accounts a on a.id = u.acc
        where u.v = 'granted' order by u.acc, u.o;
    update accounts a set balance = a.balance + s.amount
        from (select u.acc, sum(u.amount)::bigint as amount from unnest(accs, amounts, verdicts) u(acc, amount, v)
              where u.v = 'granted' group by u.acc) s
        where a.id = s.acc;
    return query
        select u.o::int, u.v, coalesce(a.balance, 0), coalesce(a.held, 0)
        from unnest(verdicts, accs) with ordinality u(v, acc, o) left join accounts a on a.id = u.acc order by u.o;
end $$;
