#!/usr/bin/env bash
# deploy/kiln.env is a file that systemd and compose read alike, and says everything once.
. "$(dirname "$0")/claims.sh"

file=$root/deploy/kiln.env
names=$(sed -nE 's/^#?([A-Z][A-Z0-9_]*)=.*/\1/p' "$file")
claim "it has settings" test "$(wc -l <<<"$names")" -gt 10
claim "every line is a comment, a setting or blank" not grep -vnE '^(#.*|[A-Z][A-Z0-9_]*=.*)?$' "$file"
claim "nothing is quoted" not grep -nE "^#?[A-Z0-9_]+=.*[\"']" "$file"
claim "nothing is said twice" same "$(sort <<<"$names" | uniq -d)" ""
claim "it holds no secret" not grep -nE '^#?[A-Z_]*(KEY|TOKEN|PASSWORD)=.+' "$file"

# Every variable that the programs' tables name is explained here. Not for operators: fail points, which
# only test builds have, and what is known by name but comes later.
tables=$(grep -rhoE --include='*.[ch]' '"(KILN_[A-Z0-9_]+|[A-Z0-9]+_(API_KEY|API_TOKEN|TOKEN|BASE_URL))"' \
    "$root/common" "$root/dispatcher" "$root/worker" 2>/dev/null | tr -d '"' | grep -vxE 'KILN_(FAILPOINTS|S3_ENDPOINT)' | sort -u)
claim "the programs read something" test -n "$tables"
claim "and all of it is explained" same "$(comm -23 <(echo "$tables") <(sort -u <<<"$names"))" ""
