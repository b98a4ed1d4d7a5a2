-- 0024_batches.sql: batches are read by their rows (0023_batches.sql), and the index that every job of one had an entry in goes.

-- Rows of batches that have none. For whoever runs it again: kiln_audit says job.batch where one is missing.
create function kiln_batches_fill() returns bigint language plpgsql volatile as $$
declare
    filled bigint;
begin
    insert into batches (id, app_id, first_job, last_job)
        select f.batch_id, f.app_id, f.id, l.id
        from (select distinct on (batch_id) batch_id, app_id, id from jobs where batch_id is not null
              order by batch_id, id) f
        join (select distinct on (batch_id) batch_id, id from jobs where batch_id is not null
              order by batch_id, id desc) l using (batch_id)
        on conflict (id) do nothing;
    get diagnostics filled = row_count;
    return filled;
end $$;

-- A call that began before 0023_batches.sql was there may still write its jobs without their batch's row: until the last of
-- them is over, for half a minute at most.
do $$
declare
    began constant timestamptz := clock_timestamp();
begin
    while clock_timestamp() < began + interval '30 seconds' and
          exists (select 1 from pg_stat_activity s where s.datname = current_database() and s.pid <> pg_backend_pid() and
                      s.backend_type = 'client backend' and s.state <> 'idle' and s.xact_start < began) loop
        perform pg_sleep(0.05);
        perform pg_stat_clear_snapshot();
    end loop;
end $$;
select kiln_batches_fill();
drop index jobs_of_batch;

-- The functions are taken as they stand, and the migration stops when a place is not there.
do $$
declare
    r record;
    def text;
begin
    for r in select * from (values
        ('kiln_batch_json', 3, 'j.batch_id = batch and j.app_id = app
', 'j.batch_id = batch and j.app_id = app
          and j.id between (select b.first_job from batches b where b.id = batch)
                       and (select b.last_job from batches b where b.id = batch)
'),
        ('kiln_batch_page', 7, 'j.batch_id = batch and j.app_id = app and (before is null or j.id < before)
', 'j.batch_id = batch and j.app_id = app and (before is null or j.id < before)
          and j.id between (select b.first_job from batches b where b.id = batch)
                       and (select b.last_job from batches b where b.id = batch)
'),
        ('kiln_audit', 0, 'union all
select ''attempt.job'',', 'union all
select ''job.batch'', j.id::text, ''a batch around it'', coalesce(b.first_job || '' to '' || b.last_job, ''none'')
    from jobs j left join batches b on b.id = j.batch_id and b.app_id = j.app_id
    where j.batch_id is not null and (b.id is null or j.id < b.first_job or j.id > b.last_job)
union all
select ''attempt.job'','))
        v(name, args, was, becomes)
    loop
        select pg_get_functiondef(p.oid) into strict def from pg_proc p
            where p.pronamespace = current_schema()::regnamespace and p.proname = r.name and p.pronargs = r.args;
        if (length(def) - length(replace(def, r.was, ''))) <> length(r.was) then
            raise exception '% has another text than this migration expects: "%"', r.name, r.was;
        end if;
        execute replace(def, r.was, r.becomes);
    end loop;
end $$;
