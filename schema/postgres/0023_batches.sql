-- 0023_batches.sql: accepting costs PostgreSQL less again. Money of one account is added up, not looked up a row; and a batch is a
-- row of its own, so that its jobs need no index entry each (0024_batches.sql reads it, when nobody writes the old way any more).

-- ---- kiln_accept ----

-- The function is taken as it stands (0022_lean_batches.sql), and the migration stops when a place is not there.
do $$
declare
    r record;
    def text;
begin
    select pg_get_functiondef(p.oid) into strict def from pg_proc p
        where p.pronamespace = current_schema()::regnamespace and p.proname = 'kiln_accept';
    for r in select * from (values
        ('    helds bigint[];
', '    helds bigint[];
    acc_ bigint;                -- all rows are of one account, as most calls and batches are: this one, and what it
    balance_ bigint;            -- has and holds
    held_ bigint;
'),
        ('    select array_agg(x.acc), array_agg(x.need), array_agg(x.balance),
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
', '    if apps = array_fill(apps[1], array[n]) and accounts = array_fill(accounts[1], array[n]) then
        select a.id, a.balance, a.held into acc_, balance_, held_
            from accounts a where a.app_id = apps[1] and a.name = accounts[1];
        needs := array(select u.units * u.unit_mc from unnest(units, unit_mcs) u(units, unit_mc));
        helds := ''{}'';
        plain := acc_ is not null;
        for row_ in 1 .. n loop
            plain := plain and needs[row_] <= balance_ - held_;
            exit when not plain;
            held_ := held_ + needs[row_];
            helds[row_] := held_;
        end loop;
        accs := array_fill(acc_, array[n]);
        balances := array_fill(balance_, array[n]);
    else
        select array_agg(x.acc), array_agg(x.need), array_agg(x.balance),
               array_agg(case when x.held <= x.balance then x.held::bigint end),
               coalesce(bool_and(coalesce(x.held <= x.balance, false)), false)
            into accs, needs, balances, helds, plain
            from (select a.id as acc, u.units * u.unit_mc as need, a.balance,
                         a.held + sum(u.units * u.unit_mc) over (partition by a.id order by u.o) as held
                  from unnest(apps, accounts, units, unit_mcs) with ordinality u(app, account, units, unit_mc, o)
                  left join accounts a on a.app_id = u.app and a.name = u.account
                  order by u.o) x;
    end if;
    if plain then
        select taken = keyed and cardinality(s.ids) = n and
               (not exists (select 1 from jobs j where j.id >= s.ids[1] and j.id <= s.ids[n])
                or not exists (select 1 from jobs j where j.id = any(s.ids)))
            into plain
            from (select array_agg(distinct u.id) as ids from unnest(ids) u(id)) s;
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

-- Its jobs are those of its number between two ids, which were made together: few others are in between. Never updated.
create table batches (
    id uuid primary key,
    app_id uuid not null,
    first_job uuid not null,
    last_job uuid not null
);

-- Each of its two forms is taken as it stands, and the migration stops when a place is not there.
do $$
declare
    r record;
    def text;
begin
    for r in select * from (values
        (20, '    if v.verdict <> ''accepted'' and kiln_accept_batch.key is not null then
', '    if v.verdict = ''accepted'' then
        insert into batches (id, app_id, first_job, last_job) values (batch, app, ids[1], ids[n])
            on conflict (id) do nothing;                        -- a reply was lost
    elsif kiln_accept_batch.key is not null then
'),
        (6, '    if v.verdict <> ''accepted'' and kiln_accept_batch.key is not null then
', '    if v.verdict = ''accepted'' then                            -- of dispatchers from before 0022_lean_batches.sql
        insert into batches (id, app_id, first_job, last_job) values (batch, app, a.ids[1], a.ids[n])
            on conflict (id) do nothing;
    elsif kiln_accept_batch.key is not null then
'))
        v(args, was, becomes)
    loop
        select pg_get_functiondef(p.oid) into strict def from pg_proc p
            where p.pronamespace = current_schema()::regnamespace and p.proname = 'kiln_accept_batch' and p.pronargs = r.args;
        if (length(def) - length(replace(def, r.was, ''))) <> length(r.was) then
            raise exception 'kiln_accept_batch has another text than this migration expects: "%"', r.was;
        end if;
        execute replace(def, r.was, r.becomes);
    end loop;
end $$;
