-- 0010_weights.sql: shares in the queue. While apps of a lane all have jobs waiting, each gets starts in proportion to its
-- weight; in an app its accounts do. Redis holds a copy that the leading dispatcher renews (kiln_weights).

alter table apps add column weight int not null default 1 check (weight between 1 and 1000);
alter table accounts add column weight int not null default 1 check (weight between 1 and 1000);
create index accounts_weight on accounts (id) where weight <> 1; -- not of a column that jobs change: their updates stay HOT

-- All weights but those that are 1, an app's own with account null; the first `max` of them, apps before accounts.
create function kiln_weights(max int) returns table (app uuid, account text, weight int)
language plpgsql volatile set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
begin
    return query
        select * from (select p.id, null::text, p.weight from apps p where p.weight <> 1 order by p.id limit max) a
        union all
        select * from (select c.app_id, c.name, c.weight from accounts c where c.weight <> 1 order by c.id limit max) b
        limit max;
end $$;
