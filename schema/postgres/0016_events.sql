-- 0016_events.sql: an app's ended jobs in the order in which they ended, for streams and their resumption.

create index jobs_ended on jobs (app_id, finished_at, id) where finished_at is not null;

-- Those after (at, after_id). A job's finished_at is read before its transaction commits, so one may still appear before
-- another that was seen: whoever must not miss any asks again from some seconds before.
create function kiln_events(app uuid, after_us bigint, after_id uuid, max int)
returns table (id uuid, us bigint, data text)
language plpgsql volatile set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off as $$
#variable_conflict use_column
begin
    return query
        select j.id, (extract(epoch from j.finished_at) * 1000000)::bigint,
               json_build_object('object', 'event', 'job', j.id, 'state', j.state, 'version', j.version,
                                 'operation', j.operation, 'account', j.account, 'batch', j.batch_id,
                                 'error', j.error_code, 'finished_at', kiln_time(j.finished_at))::text
        from jobs j
        where j.app_id = app and j.finished_at is not null
          and (j.finished_at, j.id) > (timestamptz 'epoch' + after_us * interval '1 microsecond', after_id)
        order by j.finished_at, j.id limit max;
end $$;
