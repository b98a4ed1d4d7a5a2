#!/usr/bin/env bash
# The compose file parses, and what its parts name is there. No engine is needed.
. "$(dirname "$0")/claims.sh"

# The file as JSON, merge keys (<<) resolved, as compose does it.
as_json() {
    perl -MYAML::XS -MJSON::PP -e '
        sub merged {
            my ($node) = @_;
            return [map { merged($_) } @$node] if ref $node eq "ARRAY";
            return $node if ref $node ne "HASH";
            my %into = map { %{ merged($_) } } grep { defined } $node->{"<<"};
            $into{$_} = merged($node->{$_}) for grep { $_ ne "<<" } keys %$node;
            return \%into;
        }
        print JSON::PP->new->canonical->encode(merged(YAML::XS::LoadFile($ARGV[0])));' "$1" >"$work/compose.json"
}
# Succeeds when the Perl expression $1 holds for the file; $s is its services, $c the whole.
holds() {
    perl -MJSON::PP -e 'local $/; my $c = decode_json(<STDIN>); my $s = $c->{services}; my $ok = eval $ARGV[0]; die $@ if $@; exit !$ok' \
        "$1" <"$work/compose.json"
}

printf 'a: [1,\nb: 2\n' >"$work/broken.yaml"
claim "broken YAML would be found" not as_json "$work/broken.yaml" 2>/dev/null
claim "compose.yaml is YAML" as_json "$root/deploy/compose.yaml"
claim "it has the whole system" holds '"@{[sort keys %$s]}" eq "dispatcher migrate postgres redis worker"'
claim "Redis keeps what it is given" holds '"@{$s->{redis}{command}}" =~ /--appendonly yes .*--maxmemory-policy noeviction/'
claim "PostgreSQL is 15" holds '$s->{postgres}{image} =~ /^postgres:15/'
claim "both keep their data in a volume" holds '@{$s->{redis}{volumes}} && @{$s->{postgres}{volumes}}'
claim "dispatcher and worker share one storage" \
    holds '"@{$s->{dispatcher}{volumes}}" eq "@{$s->{worker}{volumes}}" && "@{$s->{worker}{volumes}}" eq "storage:/var/lib/kiln/storage"'
claim "and one environment, but for what is their own" \
    holds '!grep { $s->{dispatcher}{environment}{$_} ne $s->{worker}{environment}{$_} } qw(KILN_DATABASE_URL KILN_REDIS_URL KILN_STORAGE)'
claim "the daemons wait for the migration, and the migration for PostgreSQL" holds '
    $s->{migrate}{depends_on}{postgres}{condition} eq "service_healthy"
    && 2 == grep { $_->{depends_on}{migrate}{condition} eq "service_completed_successfully" } @$s{qw(dispatcher worker)}'
claim "the migration runs once" holds '$s->{migrate}{restart} eq "no"'
claim "whoever is waited for is there" holds '!grep { !$s->{$_} } map { keys %{$_->{depends_on} || {}} } values %$s'
claim "whoever is waited for as healthy has a health check" holds '
    !grep { my $d = $_->{depends_on} || {}; grep { $d->{$_}{condition} eq "service_healthy" && !$s->{$_}{healthcheck} } keys %$d } values %$s'
claim "every volume and network is declared" holds '
    !grep { !/^[.\/]/ && !exists $c->{volumes}{s/:.*//r} } map { @{$_->{volumes} || []} } values %$s
    and !grep { !exists $c->{networks}{$_} } map { @{$_->{networks}} } values %$s'
claim "nothing but the API is published, and only to this machine" \
    holds '"@{[map { @{$_->{ports} || []} } values %$s]}" eq "127.0.0.1:8080:8080"'

while read -r source; do
    claim "the Dockerfile copies $source, which is there" test -e "$root/$source"
done < <(sed -n 's/^COPY \([^-].*\) [^ ]*$/\1/p' "$root/deploy/Dockerfile" | tr ' ' '\n')
claim "the Dockerfile builds every program" \
    same "$(grep -o 'target .*' "$root/deploy/Dockerfile" | tr ' ' '\n' | grep -c '^kiln')" 4
