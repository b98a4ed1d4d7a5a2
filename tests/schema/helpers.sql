-- helpers.sql: shorthands of the tests, one row of each batched function with the arguments that a test cares about.
-- j(1) is job 1, w(1) worker 1, app() the app of every test. Not part of kiln.
create function app() returns uuid language sql immutable as $$ select 'aaaaaaaa-0000-7000-8000-000000000000'::uuid $$;
create function j(n int) returns uuid language sql immutable as $$
    select ('01900000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
create function w(n int) returns uuid language sql immutable as $$
    select ('bbbbbbbb-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
create function fill(x anyelement, n int) returns anyarray language sql as $$ select array_fill(x, array[n]) $$;
insert into apps (id, name) values (app(), 'tests');

create function t_grant(account text, amount bigint, ref text default gen_random_uuid()::text)
returns table (ord int, verdict text, balance bigint, held bigint) language sql as $$
    select * from kiln_grant(array[app()], array[account], array[amount], array[ref]) $$;

create function t_accept(ids uuid[], account text default 'a', units int default 4, unit_mc bigint default 100,
                         keys text[] default null, hashes text[] default null, on_unknown text default 'retry',
                         deadline_s int default 600, provider text default 'p', max_queued int default null,
                         run_at timestamptz default null, batch uuid default null, accounts text[] default null)
returns table (ord int, verdict text, job uuid, created_at timestamptz, needed bigint, available bigint)
language sql as $$
    select kiln_accept.* from (select cardinality(ids) as n) s, kiln_accept(ids, fill(app(), n),
        coalesce(accounts, fill(account, n)), coalesce(keys, fill(null::text, n)), coalesce(hashes, fill('h'::text, n)),
        fill('op'::text, n), fill(provider, n), fill('{"prompt":"x"}'::jsonb, n), fill(null::jsonb, n), fill(units, n),
        fill(unit_mc, n), fill('v1'::text, n), fill(0, n), fill(run_at, n), fill(deadline_s, n), fill(on_unknown, n),
        fill('{}'::jsonb, n), fill(null::uuid, n), fill(batch, n), max_queued) $$;

create function t_batch(batch uuid, ids uuid[], key text default null, hash text default 'h', unit_mc bigint default 100,
                        account text default 'a')
returns table (verdict text, batch_id uuid, created_at timestamptz, needed bigint, available bigint)
language sql as $$
    select b.* from (select cardinality(ids) as n) s, kiln_accept_batch(batch, app(), key, hash, null, ids, fill(account, n),
        fill('op'::text, n), fill('p'::text, n), (select jsonb_agg('{"prompt":"x"}'::jsonb) from generate_series(1, n)), null,
        fill(1, n), fill(unit_mc, n), fill('v1'::text, n), fill(0, n), null, fill(600, n), fill('retry'::text, n), null,
        null) b $$;

create function t_beat(worker int) returns setof uuid language sql as $$ select kiln_beat(w(worker), '{}', false) $$;

create function t_start(worker int, ids uuid[], unsent boolean default false, note_attempt int default null,
                        note jsonb default null)
returns table (ord int, verdict text, fence bigint, attempt int, ref text, remaining_ms bigint, unknowns int, tries int,
               attempt_age_ms bigint, provider text) language sql as $$
    select kiln_start.* from (select cardinality(ids) as n) s,
        kiln_start(w(worker), ids, fill(unsent, n), fill(note_attempt, n), fill(note, n)) $$;

create function t_checkpoint(worker int, job uuid, fence bigint, attempt int, ref text) returns text language sql as $$
    select verdict from kiln_checkpoint(w(worker), array[job], array[fence], array[attempt], array[ref], array['rq']) $$;

create function t_artifacts(n int) returns jsonb language sql volatile as $$
    select jsonb_agg(jsonb_build_object('id', gen_random_uuid(), 'idx', i, 'kind', 'image', 'mime', 'image/png',
               'bytes', 10, 'width', 1, 'height', 1, 'sha256', 'ab', 'object', 'o/' || i))
    from generate_series(0, n - 1) i $$;

create function t_settle(worker int, ids uuid[], fence bigint, attempt int, outcome text, units int default 4,
                         code text default null, class text default null, delay_ms bigint default 0,
                         counts boolean default true, provider text default null, cost bigint default null)
returns table (ord int, verdict text, state text, version int, run_delay_ms bigint) language sql as $$
    select kiln_settle.* from (select cardinality(ids) as n) s,
        kiln_settle(w(worker), ids, fill(fence, n), fill(attempt, n), fill(outcome, n), fill(code, n), fill(class, n),
            fill('message'::text, n), fill(200, n), fill('rq'::text, n), fill(units, n), fill(cost, n),
            fill(delay_ms, n), fill(counts, n),
            array(select case when outcome = 'delivered' then t_artifacts(units) end from generate_series(1, n)),
            fill(null::jsonb, n), fill(provider, n)) $$;

create function t_handback(worker int, job uuid, fence bigint, unsent boolean default false) returns text
language sql as $$ select verdict from kiln_handback(w(worker), array[job], array[fence], array[unsent]) $$;
create function t_lost(worker int, job uuid, fence bigint) returns text
language sql as $$ select verdict from kiln_lost(w(worker), array[job], array[fence]) $$;
create function t_cancel(job uuid) returns text
language sql as $$ select verdict from kiln_cancel(array[job], array[app()]) $$;
create function t_clock(ahead interval) returns void language sql as $$ update clock_shift set shift = shift + ahead $$;
create function t_kill(worker int) returns void language sql as $$
    update workers set dead_at = kiln_now() where id = w(worker) $$;
-- The whole state of the database but for clocks, to see that a call changed nothing.
create function t_state() returns text language sql as $$
    select md5(string_agg(x, ' ' order by x)) from (
        select 'j' || j::text from jobs j union all select 't' || a::text from attempts a
        union all select 'l' || l::text from ledger l union all select 'a' || a::text from accounts a
        union all select 'f' || f::text from artifacts f union all select 'k' || k::text from idempotency k
        union all select 'o' || o::text from outbox o) s(x) $$;
