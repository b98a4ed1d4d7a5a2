-- 0001_tables.sql: what kiln knows, as tables. PostgreSQL is the truth: whatever is not here did not happen.
--
-- Money is bigint millicredits, a provider's cost bigint micro-USD, times are timestamptz by kiln_now(). Nothing but the
-- kiln_* functions of the next files writes a job's state or moves money; lock order everywhere: idempotency keys, jobs,
-- attempts, accounts, ids ascending inside each (protocol.md, rule 2).
--
-- jobs, attempts and ledger carry no foreign keys: each would lock its parent row again for every insert, on the hottest
-- path there is, for something that the functions already guarantee. kiln_audit looks for orphans instead.
--
-- Roles, for an operator who wants them apart (nothing here depends on it): the daemons' role needs EXECUTE on the kiln_*
-- functions, made SECURITY DEFINER by their owner, SELECT on the tables, INSERT on uploads, and no other right on jobs,
-- attempts, artifacts, accounts and ledger:
--   create role kiln_daemon login;
--   grant select on all tables in schema public to kiln_daemon; grant insert on uploads to kiln_daemon;
--   alter function kiln_accept security definer; ... ; revoke execute on function kiln_finish from public;

-- The one row by which a test database moves its clock.
create table clock_shift (
    one boolean primary key default true check (one),
    shift interval not null default interval '0'
);
insert into clock_shift default values;

create function kiln_now() returns timestamptz language sql volatile as $$
    select clock_timestamp() + shift from clock_shift
$$;

create table apps (
    id uuid primary key,
    name text not null unique,
    created_at timestamptz not null default kiln_now()
);

create table api_keys (
    id uuid primary key,
    app_id uuid not null references apps,
    hash bytea not null unique check (length(hash) = 32),      -- SHA-256 of the whole key
    prefix text not null,                                      -- its first 12 characters, for people
    scopes text[] not null default '{jobs}' check (scopes <@ '{jobs,credits,admin}'),
    created_at timestamptz not null default kiln_now(),
    revoked_at timestamptz
);
create index api_keys_app on api_keys (app_id);

create table accounts (
    id bigint generated always as identity primary key,
    app_id uuid not null references apps,
    name text not null check (name ~ '^[A-Za-z0-9._:@-]{1,128}$'),
    balance bigint not null default 0,
    held bigint not null default 0,
    max_running int check (max_running > 0),                   -- null: no cap
    created_at timestamptz not null default kiln_now(),
    unique (app_id, name),
    check (held >= 0 and balance >= held)
) with (fillfactor = 50);

-- Append-only. balance_after and held_after make the rows of an account a chain that proves itself.
create table ledger (
    id bigint generated always as identity primary key,
    account_id bigint not null,
    job_id uuid,
    kind text not null check (kind in ('grant', 'hold', 'capture', 'release', 'refund', 'adjust')),
    amount bigint not null check (amount > 0 or (kind = 'adjust' and amount <> 0)),
    balance_after bigint not null,
    held_after bigint not null,
    reference text,                                            -- of a grant: unique in its app
    app_id uuid,                                               -- set exactly where reference is: what that is unique in
    created_at timestamptz not null default kiln_now(),
    check ((reference is null) = (app_id is null)),
    check ((job_id is not null) or kind in ('grant', 'adjust'))
);
create unique index ledger_once on ledger (job_id, kind) where kind in ('hold', 'capture', 'release');
create unique index ledger_reference on ledger (app_id, reference) where reference is not null;
create index ledger_account on ledger (account_id, id);
create index ledger_refunds on ledger (job_id) where kind = 'refund';

create function ledger_refuse() returns trigger language plpgsql as $$
begin
    raise exception 'the ledger is append-only: % refused', tg_op using errcode = 'feature_not_supported';
end $$;
create trigger ledger_append_only before update or delete or truncate on ledger
    for each statement execute function ledger_refuse();

create table jobs (
    id uuid primary key,                                       -- made by the dispatcher before the first try
    app_id uuid not null,
    account_id bigint not null,
    account text not null,
    operation text not null,
    provider text not null,                                    -- the lane; a retry may move it
    params jsonb not null,
    inputs jsonb,
    metadata jsonb,
    state text not null default 'queued' check (state in ('queued', 'running', 'succeeded', 'failed', 'canceled')),
    holder uuid,                                               -- who may write this job now, with
    fence bigint not null default 0,                           -- this: raised by start, by nothing else
    attempt int not null default 0,                            -- number of the newest attempt
    tries int not null default 0,                              -- retries that count
    unknowns int not null default 0,                           -- attempts settled as unknown
    losses int not null default 0,                             -- workers that died collecting or storing it
    lost_fence bigint,                                         -- the fence that reported the last of them
    units int not null check (units > 0),
    unit_mc bigint not null check (unit_mc >= 0),
    hold_mc bigint not null check (hold_mc = units * unit_mc),
    delivered int,                                             -- units that came; null while open
    captured_mc bigint check (captured_mc between 0 and hold_mc),  -- null while open
    price_version text not null,
    priority int not null default 0 check (priority between -100 and 100),
    run_at timestamptz,
    deadline_at timestamptz not null,
    on_unknown text not null check (on_unknown in ('retry', 'fail')),
    blocked_by uuid[],                                         -- null: nothing in the way
    parent uuid,
    step text,
    batch_id uuid,
    retry_of uuid,
    webhook jsonb,
    extras jsonb,                                              -- what few jobs have: "notes" (texts for the customer),
                                                               -- "route" (the legs: provider, params, unit_mc)
    version int not null default 1,
    error_code text,
    error_message text,
    provider_status int,
    created_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz,
    check ((state in ('succeeded', 'failed', 'canceled')) = (captured_mc is not null and finished_at is not null)),
    check (state = 'running' or holder is null)
) with (fillfactor = 70);
create index jobs_app on jobs (app_id, id desc);
create index jobs_account on jobs (account_id, id desc);
create index jobs_queued on jobs (provider, app_id, created_at) where state = 'queued';
create index jobs_open on jobs (id) where state in ('queued', 'running');
create index jobs_fresh on jobs (created_at) where state in ('queued', 'running');
create index jobs_deadline on jobs (deadline_at) where state in ('queued', 'running');
create index jobs_holder on jobs (holder) where state = 'running';
create index jobs_blocked on jobs using gin (blocked_by) where blocked_by is not null;
create index jobs_batch on jobs (batch_id) where batch_id is not null;

-- One row = one request that may cost money, written before it leaves.
create table attempts (
    job_id uuid not null,
    no int not null check (no > 0),
    fence bigint not null,                                     -- of the start that opened it
    state text not null default 'open' check (state in ('open', 'closed')),
    class text check (class in ('not_sent', 'refused', 'unknown', 'accepted', 'answered')),  -- null: written ahead
    provider text not null,
    ref text,                                                  -- only of operations that are polled
    request_id text,
    error_code text,
    message text,
    provider_status int,
    cost_microusd bigint,
    evidence jsonb,                                            -- what came later, and from whom
    opened_at timestamptz not null,
    closed_at timestamptz,
    closed_by uuid,                                            -- who settled it, and with which fence:
    closed_fence bigint,                                       -- how a repeated settle knows its own commit
    primary key (job_id, no),
    check ((state = 'closed') = (closed_at is not null)),
    check (state = 'open' or class is not null)
) with (fillfactor = 70);
create index attempts_exposed on attempts (closed_at)
    where state = 'closed' and (class in ('unknown', 'accepted') or error_code is not null or evidence is not null);

create table artifacts (
    id uuid primary key,
    job_id uuid not null,
    idx int not null,
    attempt int not null,
    fence bigint not null,
    kind text not null,
    mime text not null,
    bytes bigint not null check (bytes >= 0),
    width int,
    height int,
    sha256 text,                                               -- hex
    object text not null,                                      -- where the bytes lie: job/fence/index
    seed text,
    revised_prompt text,
    charged boolean not null default true,                     -- false: came after kiln had given up
    created_at timestamptz not null,
    unique (job_id, attempt, idx)
);

create table workers (
    id uuid primary key,                                       -- random at each start of the process, never reused
    beat bigint not null default 1,
    beat_at timestamptz not null,
    suspect_beat bigint,
    suspect_at timestamptz,
    dead_at timestamptz,
    info jsonb,
    started_at timestamptz not null
) with (fillfactor = 50);

create table idempotency (
    app_id uuid not null,
    key text collate "C" not null,
    body_hash text not null,
    job_id uuid not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    primary key (app_id, key)
);
create index idempotency_expiry on idempotency (expires_at);

create table outbox (                                          -- written by kiln_finish only
    id bigint generated always as identity primary key,
    job_id uuid not null,
    kind text not null,
    payload jsonb not null,
    created_at timestamptz not null
);

create table uploads (
    id uuid primary key,
    app_id uuid not null references apps,
    account text not null default 'default',
    mime text not null,
    bytes bigint not null,
    width int,
    height int,
    sha256 text not null,
    object text not null,
    created_at timestamptz not null default kiln_now(),
    expires_at timestamptz not null default kiln_now() + interval '24 hours'
);
create index uploads_expiry on uploads (expires_at);

create table lanes (                                           -- what operators set; Redis holds a copy
    name text primary key,
    concurrency int check (concurrency >= 0),
    budget_count int check (budget_count > 0),
    budget_window_ms int check (budget_window_ms > 0),
    paused_until timestamptz,
    updated_at timestamptz not null default kiln_now(),
    check ((budget_count is null) = (budget_window_ms is null))
);

-- Providers that refuse everybody (their key, their funds, their region), as settle saw it: routes try them last until
-- then; after that one job is the probe. A delivered result deletes the row.
create table breakers (
    provider text primary key,
    code text not null,
    failures int not null default 1,
    until timestamptz not null,
    updated_at timestamptz not null default kiln_now()
);

create table leases (
    name text primary key,
    owner uuid not null,
    until timestamptz not null,
    redis_run_id text,
    redis_marker text,
    note jsonb
);
