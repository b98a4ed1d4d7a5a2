-- 0025_leaner_batches.sql: what all jobs of a batch have in common comes once, and its verdict is one row.

-- ---- kiln_accept: a call that is one batch, and taken without judging rows, is answered by its first: all share its verdict ----

-- Each function is taken as it stands (0023_batches.sql), and the migration stops when a place is not there.
do $$
declare
    def text;
    was constant text := '        return query select i::int, ''accepted'', u.id, now_, needs[i], null::bigint
            from unnest(ids) with ordinality u(id, i);
';
    becomes constant text := '        return query select i::int, ''accepted'', u.id, now_, needs[i], null::bigint
            from unnest(ids) with ordinality u(id, i)
            limit case when batches[1] is not null and batches = array_fill(batches[1], array[n]) then 1 end;
';
begin
    select pg_get_functiondef(p.oid) into strict def from pg_proc p
        where p.pronamespace = current_schema()::regnamespace and p.proname = 'kiln_accept';
    if length(def) - length(replace(def, was, '')) <> length(was) then
        raise exception 'kiln_accept has another text than this migration expects: "%"', was;
    end if;
    execute replace(def, was, becomes);
end $$;

-- ---- kiln_accept_batch: an array of one value is that value for each of the batch's jobs ----

create function kiln_each(list anyarray, n int) returns anyarray language sql immutable parallel safe as $$
    select case when cardinality(list) = 1 then array_fill(list[1], array[n]) else list end
$$;

do $$
declare
    def text;
    was constant text := '    -- The first that was not taken speaks for all: they share its verdict.
';
    becomes constant text := '    accounts := kiln_each(accounts, n);
    operations := kiln_each(operations, n);
    providers := kiln_each(providers, n);
    units := kiln_each(units, n);
    unit_mcs := kiln_each(unit_mcs, n);
    price_versions := kiln_each(price_versions, n);
    priorities := kiln_each(priorities, n);
    run_ats := kiln_each(run_ats, n);
    deadlines_s := kiln_each(deadlines_s, n);
    on_unknowns := kiln_each(on_unknowns, n);
    -- The first that was not taken speaks for all: they share its verdict.
';
begin
    select pg_get_functiondef(p.oid) into strict def from pg_proc p
        where p.pronamespace = current_schema()::regnamespace and p.proname = 'kiln_accept_batch' and p.pronargs = 20;
    if length(def) - length(replace(def, was, '')) <> length(was) then
        raise exception 'kiln_accept_batch has another text than this migration expects: "%"', was;
    end if;
    execute replace(def, was, becomes);
end $$;
