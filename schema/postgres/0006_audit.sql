-- 0006_audit.sql: kiln_audit recomputes every account and every job from the ledger and the attempts, and returns each
-- difference. Zero rows is the only pass. One statement, so one snapshot: it may run while everything else does.
-- The names in comments are the invariants of the ledger page (I1...I9) and of protocol.md.

create function kiln_audit()
returns table ("check" text, subject text, expected text, found text)
language sql volatile set jit = off as $$
with rows as (
    select l.*,
           case l.kind when 'grant' then l.amount when 'refund' then l.amount when 'adjust' then l.amount
                       when 'capture' then -l.amount else 0 end as moved,
           case l.kind when 'hold' then l.amount when 'capture' then -l.amount when 'release' then -l.amount
                       else 0 end as reserved
    from ledger l
), chain as (
    select r.*, coalesce(lag(r.balance_after) over w, 0) + r.moved as balance_due,
           coalesce(lag(r.held_after) over w, 0) + r.reserved as held_due
    from rows r window w as (partition by r.account_id order by r.id)
), per_account as (
    select r.account_id, sum(r.moved) as balance, sum(r.reserved) as held from rows r group by r.account_id
), open_holds as (
    select j.account_id, sum(j.hold_mc) as held from jobs j where j.state in ('queued', 'running') group by j.account_id
), per_job as (
    select l.job_id, count(*) filter (where l.kind = 'hold') as holds,
           coalesce(sum(l.amount) filter (where l.kind = 'hold'), 0) as hold,
           coalesce(sum(l.amount) filter (where l.kind = 'capture'), 0) as capture,
           coalesce(sum(l.amount) filter (where l.kind = 'release'), 0) as release,
           coalesce(sum(l.amount) filter (where l.kind = 'refund'), 0) as refund,
           count(*) filter (where l.kind = 'capture') as captures, count(*) filter (where l.kind = 'release') as releases,
           min(l.account_id) as account_min, max(l.account_id) as account_max
    from ledger l where l.job_id is not null group by l.job_id
), per_attempts as (
    select a.job_id, count(*) as n, max(a.no) as top, count(*) filter (where a.state = 'open') as open,
           max(a.no) filter (where a.state = 'open') as open_no, count(*) filter (where a.class = 'unknown') as unknown,
           max(a.fence) as fence
    from attempts a group by a.job_id
), per_artifacts as (
    select f.job_id, count(*) filter (where f.charged) as charged, count(*) filter (where not f.charged) as free
    from artifacts f group by f.job_id
), books as (
    select j.*, j.state in ('succeeded', 'failed', 'canceled') as ended, coalesce(l.holds, 0) as l_holds,
           coalesce(l.hold, 0) as l_hold, coalesce(l.capture, 0) as l_capture, coalesce(l.release, 0) as l_release,
           coalesce(l.refund, 0) as l_refund, coalesce(l.captures, 0) as l_captures,
           coalesce(l.releases, 0) as l_releases, l.account_min, l.account_max,
           coalesce(t.n, 0) as t_n, coalesce(t.top, 0) as t_top, coalesce(t.open, 0) as t_open, t.open_no,
           coalesce(t.unknown, 0) as t_unknown, coalesce(t.fence, 0) as t_fence,
           coalesce(f.charged, 0) as f_charged, coalesce(f.free, 0) as f_free
    from jobs j left join per_job l on l.job_id = j.id left join per_attempts t on t.job_id = j.id
    left join per_artifacts f on f.job_id = j.id
)
-- I1, I2, I3: what the accounts say
select 'account.balance', 'account ' || a.id, coalesce(p.balance, 0)::text, a.balance::text
    from accounts a left join per_account p on p.account_id = a.id where a.balance <> coalesce(p.balance, 0)
union all
select 'account.held', 'account ' || a.id, coalesce(p.held, 0)::text, a.held::text
    from accounts a left join per_account p on p.account_id = a.id where a.held <> coalesce(p.held, 0)
union all
select 'account.open_holds', 'account ' || a.id, coalesce(o.held, 0)::text, a.held::text
    from accounts a left join open_holds o on o.account_id = a.id where a.held <> coalesce(o.held, 0)
union all
select 'account.limits', 'account ' || a.id, '0 <= held <= balance', a.held || ' of ' || a.balance
    from accounts a where a.held < 0 or a.held > a.balance
union all                                                       -- I4
select 'total', k.name, k.due::text, k.stored::text
    from (select 'balance' as name, (select coalesce(sum(balance), 0) from accounts) as stored,
                 (select coalesce(sum(moved), 0) from rows) as due
          union all select 'held', (select coalesce(sum(held), 0) from accounts),
                           (select coalesce(sum(reserved), 0) from rows)) k
    where k.stored <> k.due
union all                                                       -- I7
select 'ledger.chain', 'row ' || c.id || ' of account ' || c.account_id, c.balance_due || '/' || c.held_due,
       c.balance_after || '/' || c.held_after
    from chain c where c.balance_after <> c.balance_due or c.held_after <> c.held_due
union all
select 'ledger.account', 'row ' || l.id, 'an account', 'account ' || l.account_id
    from ledger l where not exists (select 1 from accounts a where a.id = l.account_id)
union all
select 'ledger.job', 'row ' || l.id, 'a job', l.job_id::text
    from ledger l where l.job_id is not null and not exists (select 1 from jobs j where j.id = l.job_id)
-- I5, I6, invariant 1: the money of each job
union all
select 'job.account', b.id::text, 'account ' || b.account_id, coalesce(b.account_min || ' to ' || b.account_max, 'none')
    from books b where b.account_min <> b.account_id or b.account_max <> b.account_id
        or not exists (select 1 from accounts a where a.id = b.account_id and a.app_id = b.app_id and a.name = b.account)
union all
select 'job.price', b.id::text, (b.units::numeric * b.unit_mc)::text, b.hold_mc::text
    from books b where b.hold_mc <> b.units::numeric * b.unit_mc
union all
select 'job.hold', b.id::text, (b.hold_mc > 0)::int || ' row of ' || b.hold_mc, b.l_holds || ' row of ' || b.l_hold
    from books b where b.l_hold <> b.hold_mc or b.l_holds <> (b.hold_mc > 0)::int
union all
select 'job.open', b.id::text, 'hold open', 'captured ' || b.l_capture || ', released ' || b.l_release
    from books b where not b.ended and (b.l_captures > 0 or b.l_releases > 0 or b.captured_mc is not null)
union all
select 'job.closed', b.id::text, 'capture + release = ' || b.hold_mc, b.l_capture || ' + ' || b.l_release
    from books b where b.ended and (b.l_capture + b.l_release <> b.hold_mc or b.l_captures > 1 or b.l_releases > 1)
union all
select 'job.captured', b.id::text, coalesce(b.captured_mc::text, 'null'), b.l_capture::text
    from books b where b.ended and b.captured_mc is distinct from b.l_capture
union all                                                       -- I8
select 'job.delivered', b.id::text,
       (least(greatest(b.delivered, 0), b.units)::numeric * kiln_charge_mc(b.extras, b.provider, b.unit_mc))::text,
       coalesce(b.captured_mc::text, 'null')
    from books b where b.ended and b.captured_mc is distinct from
        least(greatest(b.delivered, 0), b.units)::numeric * kiln_charge_mc(b.extras, b.provider, b.unit_mc)
union all
select 'job.charged', b.id::text, 'nothing captured', b.captured_mc::text
    from books b where b.state in ('failed', 'canceled') and b.captured_mc > 0
union all
select 'job.refund', b.id::text, 'at most ' || b.l_capture, b.l_refund::text from books b where b.l_refund > b.l_capture
-- who may write, and what was asked
union all
select 'job.holder', b.id::text, 'none', b.holder::text from books b where b.state <> 'running' and b.holder is not null
union all
select 'job.attempts', b.id::text, case when b.state = 'running' then '1 open' else '0 open' end, b.t_open || ' open'
    from books b where b.t_open <> (b.state = 'running')::int
union all
select 'job.attempt_no', b.id::text, '1 to ' || b.attempt, b.t_n || ' rows to ' || b.t_top
    from books b where b.t_n <> b.attempt or b.t_top <> b.attempt or b.open_no <> b.attempt
union all
select 'job.fence', b.id::text, 'at least ' || b.t_fence || ' and ' || b.attempt, b.fence::text
    from books b where b.fence < b.t_fence or b.fence < b.attempt
union all                                                       -- I9, as far as it is written here
select 'job.unknowns', b.id::text, 'at most ' || case b.on_unknown when 'retry' then 2 else 1 end, b.t_unknown::text
    from books b where b.t_unknown > case b.on_unknown when 'retry' then 2 else 1 end
union all
select 'attempt.job', a.job_id || ' no ' || a.no, 'a job', 'none'
    from attempts a where not exists (select 1 from jobs j where j.id = a.job_id)
-- results
union all
select 'artifact.early', b.id::text, 'no artifact', b.f_charged + b.f_free || ' while ' || b.state
    from books b where not b.ended and b.f_charged + b.f_free > 0
union all
select 'artifact.charged', b.id::text, 'none charged', b.f_charged || ' of a job that ' || b.state
    from books b where b.state in ('failed', 'canceled') and b.f_charged > 0
union all
select 'artifact.free', b.id::text, 'none', b.f_free || ' of a job that ' || b.state || ' ' || coalesce(b.error_code, '')
    from books b where b.ended and b.f_free > 0
        and not (b.state = 'failed' and b.error_code in ('outcome_unknown', 'timeout'))
union all
select 'artifact.missing', b.id::text, 'what was captured for', 'no artifact'
    from books b where b.captured_mc > 0 and b.f_charged = 0
union all
select 'artifact.job', f.id::text, 'a job', f.job_id::text
    from artifacts f where not exists (select 1 from jobs j where j.id = f.job_id)
-- keys and events
union all
select 'key.job', k.app_id || ' ' || k.key, 'a job of this app', k.job_id::text
    from idempotency k where not exists (select 1 from jobs j where j.id = k.job_id and j.app_id = k.app_id)
union all
select 'outbox', o.job_id::text, 'a finished job, once', count(*)::text
    from outbox o left join jobs j on j.id = o.job_id
    group by o.job_id, j.state
    having count(*) > 1 or j.state is null or j.state in ('queued', 'running')
order by 1, 2
$$;
