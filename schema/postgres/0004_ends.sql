-- 0004_ends.sql: cancel and expire, which end jobs whoever holds them; the beat, by which workers live and die; the
-- reconciler's lease.

-- verdict: canceled | finished | not_found (another app's job too; an app of null is an operator). holder and ref are what
-- they were, so that the holder can be told and can cancel at the provider.
create function kiln_cancel(ids uuid[], apps uuid[])
returns table (ord int, verdict text, holder uuid, provider text, ref text, version int)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    acts text[];
    holders uuid[];
    refs text[];
begin
    perform 1 from jobs j where j.id = any(ids) and j.captured_mc is null order by j.id for no key update;
    perform 1 from attempts a where a.job_id = any(ids) and a.state = 'open' order by a.job_id, a.no for no key update;
    select array_agg(case
            when j.id is null or j.app_id <> u.app then 'not_found'
            when j.state in ('succeeded', 'failed', 'canceled') or u.twin > 1 then 'finished'
            else 'canceled' end order by u.o),
           array_agg(j.holder order by u.o), array_agg(a.ref order by u.o)
        into acts, holders, refs
        from (select *, row_number() over (partition by t.id, t.app order by t.o) as twin
              from unnest(ids, apps) with ordinality t(id, app, o)) u
        left join jobs j on j.id = u.id
        left join attempts a on a.job_id = j.id and a.no = j.attempt and a.state = 'open';
    perform kiln_finish(array_agg(s.id), array_agg('canceled'::text), array_agg(null::int), array_agg('canceled'::text),
                        array_agg(null::text), array_agg(null::int))
        from (select distinct u.id from unnest(ids, acts) u(id, act) where u.act = 'canceled') s;
    return query
        select u.o::int, u.act, case when u.act = 'canceled' then u.holder end,
               case when u.act <> 'not_found' then j.provider end, case when u.act = 'canceled' then u.ref end,
               case when u.act <> 'not_found' then j.version end
        from unnest(ids, acts, holders, refs) with ordinality u(id, act, holder, ref, o)
        left join jobs j on j.id = u.id order by u.o;
end $$;

-- Ends what is past its deadline, at most `max` jobs a call: queued ones at once, running ones 60 s later, whoever holds
-- them. Never captures. Jobs that somebody else has locked are left for the next call.
create function kiln_expire(max int)
returns table (job uuid, app uuid, provider text, state text, error_code text, holder uuid)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    now_ constant timestamptz := kiln_now();
    ids uuid[];
    codes text[];
    holders uuid[];
begin
    select array_agg(s.id) into ids
        from (select j.id from jobs j
              where j.state in ('queued', 'running') and j.deadline_at <= now_ and
                    (j.state = 'queued' or j.deadline_at <= now_ - interval '60 seconds')
              order by j.deadline_at limit max for no key update skip locked) s;
    if ids is null then
        return;
    end if;
    perform 1 from attempts a where a.job_id = any(ids) and a.state = 'open' order by a.job_id, a.no for no key update;
    select array_agg(case when j.state = 'queued' then 'expired'
                          when a.ref is not null or a.class = 'accepted' then 'timeout'
                          else 'outcome_unknown' end order by u.o), array_agg(j.holder order by u.o)
        into codes, holders
        from unnest(ids) with ordinality u(id, o) join jobs j on j.id = u.id
        left join attempts a on a.job_id = j.id and a.no = j.attempt and a.state = 'open';
    perform kiln_finish(ids, array_fill('failed'::text, array[cardinality(ids)]), array_fill(null::int, array[cardinality(ids)]),
                        codes, array_fill(null::text, array[cardinality(ids)]),
                        array_fill(null::int, array[cardinality(ids)]));
    return query
        select j.id, j.app_id, j.provider, j.state, j.error_code, u.holder
        from unnest(ids, holders) with ordinality u(id, holder, o) join jobs j on j.id = u.id order by u.o;
end $$;

-- A worker's heartbeat, each second; worker null: the dispatcher, which only looks. Returns the dead of the last ten
-- minutes. Two looks 2.5 s apart at the same beat, so that a pause of PostgreSQL or a jump of the clock, which both make
-- everybody look silent once, kill nobody. There is a look each second; so a first look more than 5 s old means that time has
-- jumped or stood still since, and is taken anew. A beat that lies ahead counts as silence, or a clock set back would keep
-- the dead alive; but only a minute ahead, because a call that read its clock before a small jump sees the beats after it.
-- Rows that another call is at are skipped: no call waits for another's row.
create function kiln_beat(worker uuid, info jsonb, leaving boolean)
returns table (dead uuid)
language plpgsql volatile as $$
#variable_conflict use_column
declare
    now_ timestamptz := kiln_now();
begin
    if worker is not null then
        insert into workers as w (id, beat_at, dead_at, info, started_at)
            values (worker, now_, case when leaving then now_ end, info, now_)
            on conflict (id) do update
                set beat = w.beat + 1, beat_at = excluded.beat_at, suspect_beat = null, suspect_at = null,
                    dead_at = excluded.dead_at, info = coalesce(excluded.info, w.info);
    end if;
    now_ := kiln_now();
    update workers set dead_at = now_                           -- (c), before (b): the look just noted is no second one
        where id in (select w.id from workers w
                     where w.dead_at is null and w.suspect_beat = w.beat and
                           w.suspect_at between now_ - interval '5 seconds' and now_ - interval '2.5 seconds'
                     for no key update skip locked);
    update workers set suspect_beat = beat, suspect_at = now_   -- (b)
        where id in (select w.id from workers w
                     where w.dead_at is null and
                           (w.beat_at <= now_ - interval '2 seconds' or w.beat_at > now_ + interval '1 minute') and
                           (w.suspect_beat is distinct from w.beat or
                            w.suspect_at not between now_ - interval '5 seconds' and now_)
                     for no key update skip locked);
    delete from workers
        where id in (select w.id from workers w
                     where w.dead_at < now_ - interval '1 day' and
                           not exists (select 1 from jobs j where j.state = 'running' and j.holder = w.id)
                     for update skip locked);
    return query select w.id from workers w where w.dead_at > now_ - interval '10 minutes' order by w.id;
end $$;

-- True while `owner` has the lease: free, expired or already its own. ttl_ms of 0 gives it back.
create function kiln_lease(name text, owner uuid, ttl_ms int) returns boolean
language plpgsql volatile as $$
#variable_conflict use_column
declare
    now_ constant timestamptz := kiln_now();
begin
    insert into leases as l (name, owner, until)
        values (kiln_lease.name, kiln_lease.owner, now_ + make_interval(secs => ttl_ms / 1000.0))
        on conflict (name) do update set owner = excluded.owner, until = excluded.until
            where l.owner = excluded.owner or l.until <= now_;
    return found;
end $$;

-- What the last complete pass saw of Redis; false when the lease is not the caller's any more.
create function kiln_lease_note(name text, owner uuid, redis_run_id text, marker text) returns boolean
language plpgsql volatile as $$
#variable_conflict use_column
begin
    update leases l set redis_run_id = kiln_lease_note.redis_run_id, redis_marker = marker
        where l.name = kiln_lease_note.name and l.owner = kiln_lease_note.owner and l.until > kiln_now();
    return found;
end $$;

create function kiln_lease_read(name text)
returns table (redis_run_id text, redis_marker text, owner uuid, remaining_ms bigint)
language sql volatile as $$
    select l.redis_run_id, l.redis_marker, l.owner,
           greatest(0, floor(extract(epoch from l.until - kiln_now()) * 1000))::bigint
    from leases l where l.name = kiln_lease_read.name
$$;
