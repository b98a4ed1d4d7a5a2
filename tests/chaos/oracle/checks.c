/* checks.c - what has to be true when a case is over, each as a query for its violations.
 *
 * Written from design.md and protocol.md, not from kiln's SQL. `f` is the document of facts. A tag of the sandbox is
 * the
 * [[job:TAG]] of a prompt; jobs that share a tag are counted together. "Free" attempts are those of class not_sent and
 * refused: whatever else was asked may have been paid. */
#include "tests/chaos/oracle/oracle.h"

#define FACTS "with f as (select $1::jsonb as f) "
#define FINAL "('succeeded', 'failed', 'canceled')"
#define TAGGED                                                                                                         \
    "tagged as (select j.*, substring(j.params::text from '\\[\\[job:([A-Za-z0-9._-]+)\\]\\]') as tag from jobs j), "  \
    "counted as (select c.key as tag, (c.value->>'paid')::int as paid, (c.value->>'requests')::int as requests "       \
    "from f, jsonb_each(f.f->'counters') c), "                                                                         \
    "asked as (select t.tag, count(distinct t.id) as jobs, count(a.no) as rows, "                                      \
    "count(a.no) filter (where a.class is null or a.class not in ('not_sent', 'refused')) as unfree, "                 \
    "bool_or(t.state = 'succeeded') as is_delivered "                                                                  \
    "from tagged t left join attempts a on a.job_id = t.id where t.tag is not null group by t.tag) "

const struct oracle_check oracle_checks[] = {
    { "audit", FACTS "select a.\"check\" || ' ' || a.subject || ': expected ' || a.expected || ', found ' || a.found "
                     "from f, kiln_audit() a" },
    /* every accepted job ends; with `bound`, only those past deadline + 65 s must have ended (invariant 5) */
    { "ended",
      FACTS "select 'job ' || j.id || ' is ' || j.state || ', ' || "
            "round(extract(epoch from kiln_now() - j.created_at)) || ' s after it was accepted' from f, jobs j "
            "where j.state not in " FINAL " and (not (f.f->>'bound')::boolean "
            "or kiln_now() > j.deadline_at + interval '65 s')" },
    /* invariant 1, counted from the rows alone */
    { "hold",
      FACTS ", money as (select j.id, j.hold_mc, j.state, count(l.*) filter (where l.kind = 'hold') as holds, "
            "count(l.*) filter (where l.kind = 'capture') as captures, "
            "count(l.*) filter (where l.kind = 'release') as releases, "
            "coalesce(sum(l.amount) filter (where l.kind = 'hold'), 0) as held, "
            "coalesce(sum(l.amount) filter (where l.kind in ('capture', 'release')), 0) as closed "
            "from jobs j left join ledger l on l.job_id = j.id group by j.id) "
            "select 'job ' || id || ' ' || state || ': ' || holds || ' hold of ' || held || ', closed ' || closed || "
            "' by ' || captures || ' capture and ' || releases || ' release' from money where "
            "holds <> (hold_mc > 0)::int or held <> hold_mc or captures > 1 or releases > 1 "
            "or (state in " FINAL " and closed <> held) or (state not in " FINAL " and closed <> 0)" },
    { "captured", FACTS "select 'job ' || j.id || ' ' || j.state || ' was charged ' || l.amount from jobs j "
                        "join ledger l on l.job_id = j.id and l.kind = 'capture' where j.state <> 'succeeded'" },
    { "holder", FACTS "select 'job ' || id || ' ' || state || ' has holder ' || holder from jobs "
                      "where holder is not null and state in " FINAL },
    { "open_attempt", FACTS "select 'job ' || j.id || ' ' || j.state || ': attempt ' || a.no || ' is open' from jobs j "
                            "join attempts a on a.job_id = j.id where a.state = 'open' and j.state in " FINAL },
    /* invariant 3: what the provider saw has its row, and a row is sent at most once */
    { "asked",
      FACTS ", " TAGGED "select 'tag ' || c.tag || ': ' || c.requests || ' requests, ' || coalesce(a.rows, 0) || "
            "' attempts' from counted c left join asked a using (tag) where c.requests > coalesce(a.rows, 0)" },
    { "paid",
      FACTS ", " TAGGED "select 'tag ' || c.tag || ': paid ' || c.paid || ' times, ' || coalesce(a.unfree, 0) || "
            "' attempts can have cost' from counted c left join asked a using (tag) "
            "where c.paid > coalesce(a.unfree, 0)" },
    { "unpaid", FACTS ", " TAGGED "select 'tag ' || a.tag || ' was delivered and never paid for' from asked a "
                      "left join counted c using (tag) where a.is_delivered and coalesce(c.paid, 0) = 0" },
    /* invariant 4: why there is another attempt at all */
    { "again", FACTS "select 'job ' || a.job_id || ': attempt ' || b.no || ' after one that was ' || a.class || "
                     "coalesce(' with a reference', '') from attempts a join attempts b on b.job_id = a.job_id and "
                     "b.no = a.no + 1 where a.class = 'accepted' or (a.class = 'unknown' and a.ref is not null) "
                     "or (a.class = 'answered' and a.error_code is null)" },
    { "unknowns", FACTS "select 'job ' || j.id || ': ' || count(*) || ' unknown attempts were followed by another, '"
                        " || 'on_unknown ' || j.on_unknown from jobs j join attempts a on a.job_id = j.id and "
                        "a.class = 'unknown' and a.no < j.attempt group by j.id "
                        "having count(*) > case j.on_unknown when 'retry' then 1 else 0 end" },
    { "attempt_rows", FACTS "select 'job ' || j.id || ' has ' || count(a.no) || ' attempts and counts ' || j.attempt "
                            "from jobs j left join attempts a on a.job_id = j.id group by j.id "
                            "having count(a.no) <> j.attempt" },
    /* invariant 2: the end was written by the last start, and so were the results */
    { "stale", FACTS
      "select 'job ' || j.id || ' of fence ' || j.fence || ': attempt ' || a.no || ' was closed by fence ' || a.closed_fence "
      "from jobs j join attempts a on a.job_id = j.id and a.no = j.attempt where j.state in " FINAL
      " and a.closed_fence <> j.fence "
      "union all select 'job ' || j.id || ' of fence ' || j.fence || ': artifact ' || r.id || ' is of fence ' || r.fence "
      "from jobs j join artifacts r on r.job_id = j.id where r.charged and r.fence <> j.fence" },
    /* results */
    { "artifact_file", FACTS
      "select 'artifact ' || a.id || ' of job ' || a.job_id || ': ' || case when o.object is null then 'no file' "
      "else 'file of ' || o.bytes || ' bytes, sha256 ' || o.sha256 end || ', promised ' || a.bytes || ', ' || "
      "coalesce(a.sha256, 'none') from f, artifacts a left join lateral (select o->>'object' as object, "
      "(o->>'bytes')::bigint as bytes, o->>'sha256' as sha256 from jsonb_array_elements(f.f->'files'->'objects') o "
      "where o->>'object' = a.object limit 1) o on true "
      "where o.object is null or o.bytes <> a.bytes or o.sha256 is distinct from a.sha256" },
    { "artifact_job", FACTS "select 'artifact ' || a.id || ' of job ' || a.job_id || ', which ' || "
                            "coalesce('is ' || j.state, 'does not exist') from artifacts a left join jobs j "
                            "on j.id = a.job_id where j.id is null or j.state not in " FINAL
                            " or (a.charged and j.state <> 'succeeded')" },
    { "delivered",
      FACTS "select 'job ' || j.id || ' succeeded without artifacts' from jobs j where j.state = 'succeeded' "
            "and not exists (select 1 from artifacts a where a.job_id = j.id)" },
    /* after `grace_s` nothing lies about; only the sweep removes objects, so a short run asks with a long grace */
    { "object",
      FACTS "select 'object ' || (o->>'object') || ' belongs to nobody' from f, "
            "jsonb_array_elements(f.f->'files'->'objects') o where (o->>'age_s')::float8 > (f.f->>'grace_s')::float8 "
            "and not exists (select 1 from artifacts a where a.object = o->>'object') "
            "and not exists (select 1 from uploads u where u.object = o->>'object') "
            "and not exists (select 1 from jobs j where j.state not in " FINAL
            " and j.id::text = split_part(o->>'object', '/', 3))" },
    { "temp",
      FACTS "select 'temporary file ' || (o->>'name') || ' was left' from f, "
            "jsonb_array_elements(f.f->'files'->'temps') o where (o->>'age_s')::float8 > (f.f->>'grace_s')::float8" },
    { "redis",
      FACTS "select 'Redis key ' || (o->>'key') || ' holds job ' || j.id || ', which ' || j.state from f, "
            "jsonb_array_elements(f.f->'redis') o join jobs j on j.id::text = o->>'id' where j.state in " FINAL },
};
const size_t oracle_check_count = sizeof(oracle_checks) / sizeof(oracle_checks[0]);
