#!/usr/bin/env bash
# A private Redis and PostgreSQL, from a clone that user postgres cannot enter (mktemp -d makes it 0700).
. "$(dirname "$0")/claims.sh"
. "$root/scripts/lib.sh"

mkdir "$work/clone" && cp -r "$root/scripts" "$work/clone/" || exit 1
services=$work/clone/scripts/services
one=$work/clone/.kiln/services two=$work/clone/two
at_end+=('for d in "$one" "$two" "$work/broken"; do "$services" remove --dir "$d" 2>/dev/null; done')

of() { "$services" env --dir "$1" | sed -n "s/^$2=//p"; }
ask_postgres() { /usr/lib/postgresql/15/bin/psql -X -A -t -v ON_ERROR_STOP=1 "$(of "$1" KILN_DATABASE_URL)" -c "$2"; }
ask_redis() { redis-cli -s "$(of "$1" KILN_REDIS_URL | sed 's/^unix://')" "${@:2}" | tail -n 1; }
pids() { "$services" status --dir "$1" | sed -n 's/.*pid //p'; }
anything_left() { # DIR REAL_DATA: whoever was started with a path in DIR or works in the data folder
    pgrep -f -- "$1/"
    find /proc -maxdepth 2 -name cwd -lname "$2/*" 2>/dev/null
}

claim "before start there is no environment" not "$services" env --dir "$one" 2>/dev/null
claim "they start below a folder of mode 0700" "$services" start --dir "$one"
claim "PostgreSQL answers at the printed URL" same "$(ask_postgres "$one" 'select 1')" 1
claim "Redis answers at the printed URL" same "$(ask_redis "$one" ping)" PONG
claim "fsync is on" same "$(ask_postgres "$one" 'show fsync')" on
claim "nothing listens on TCP" same "$(ask_postgres "$one" 'show listen_addresses')$(ask_redis "$one" config get port)" 0
claim "Redis appends" same "$(ask_redis "$one" config get appendonly)" yes
claim "every second" same "$(ask_redis "$one" config get appendfsync)" everysec
claim "Redis evicts nothing" same "$(ask_redis "$one" config get maxmemory-policy)" noeviction
claim "kiln is not the superuser" same "$(ask_postgres "$one" 'select usesuper from pg_user where usename = current_user')" f
if [ "$(id -u)" = 0 ]; then
    claim "as root the data lies where postgres can enter, linked" test -L "$one/postgres"
    claim "and PostgreSQL runs as postgres" same "$(stat -c %U "/proc/$(pids "$one" | tail -n 1)")" postgres
fi
socket=$(of "$one" KILN_REDIS_URL | sed 's/^unix://')
claim "the socket's name is short" test "${#socket}" -lt 60
claim "nobody else enters the sockets' folder" same "$(stat -c %a "$(dirname "$socket")")" 700

before=$(pids "$one")
claim "a second start" "$services" start --dir "$one"
claim "reuses what runs" same "$(pids "$one")" "$before"

claim "two stand side by side" "$services" start --fast --dir "$two"
claim "each with its own data" ask_postgres "$two" 'create table only_here ()' >/dev/null
claim "that the other does not see" not ask_postgres "$one" 'select from only_here' 2>/dev/null
claim "--fast is without fsync" same "$(ask_postgres "$two" 'show fsync')" off
data=$(readlink -f "$two/postgres")
claim "one stops" "$services" stop --dir "$two"
claim "and leaves no process" same "$(anything_left "$two" "$data")" ""
claim "and no sockets" not test -e "$two/sockets"
claim "and no environment" not "$services" env --dir "$two" 2>/dev/null
claim "the other runs on" same "$(pids "$one")" "$before"

ask_postgres "$one" 'create table kept as select 42 as n' >/dev/null && ask_redis "$one" set kept 43 >/dev/null
for how in "stop start" "kill-postgres start-postgres" "stop-postgres start-postgres" "restart-postgres"; do
    for verb in $how; do claim "$verb" "$services" "$verb" --dir "$one"; done
    claim "after $how the rows are there" same "$(ask_postgres "$one" 'select n from kept')" 42
done
for how in "kill-redis start-redis" "restart-redis"; do
    sleep 1.1 # appendfsync everysec: what is older than a second is on disk
    for verb in $how; do claim "$verb" "$services" "$verb" --dir "$one"; done
    claim "after $how the keys are there" same "$(ask_redis "$one" get kept)" 43
done

"$services" stop --dir "$one"
sleep 300 &
stranger=$!
at_end+=('kill $stranger')
echo "$stranger" >"$one/redis/redis.pid"
claim "a pid file with a stranger's pid" "$services" stop --dir "$one"
claim "does not cost the stranger its life" kill -0 "$stranger"

mkdir "$work/broken"
"$services" start --fast --dir "$work/broken" && "$services" stop --dir "$work/broken"
data=$(readlink -f "$work/broken/postgres")
echo 'shared_buffers = nonsense' >>"$data/data/postgresql.auto.conf"
claim "a start that cannot succeed fails" not "$services" start --dir "$work/broken" 2>"$work/why"
claim "and says why" grep -q nonsense "$work/why"
claim "and leaves no process" same "$(anything_left "$work/broken" "$data")" ""

claim "remove deletes the data" "$services" remove --dir "$one"
claim "and the folder" not test -e "$one"

if [ "$(id -u)" = 0 ]; then
    public=$(mktemp -d /tmp/kiln-test.XXXXXX) && cp -r "$root/scripts" "$public/" && chown -R nobody "$public"
    at_end+=('rm -rf "$public"')
    chmod 0755 "$public"
    as_nobody() { (cd / && setpriv --reuid nobody --regid nogroup --clear-groups env HOME=/ "$public/scripts/services" "$@" --dir "$public/d"); }
    claim "without root they run" as_nobody start --fast
    claim "as the user who asked" same "$(stat -c %U "/proc/$(as_nobody status | sed -n 's/postgres.*pid //p')")" nobody
    claim "and are removed" as_nobody remove
    claim "without a trace" not test -e "$public/d"
fi
