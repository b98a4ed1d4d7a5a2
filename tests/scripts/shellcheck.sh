#!/usr/bin/env bash
# Every shell script of the repository is free of what shellcheck knows.
. "$(dirname "$0")/claims.sh"

cd "$root" || exit 1
mapfile -t scripts < <(grep -rlE '^#!.*\b(ba)?sh$|^# shellcheck shell=' scripts tests deploy .ci)
claim "there are scripts" test ${#scripts[@]} -gt 8
claim "shellcheck finds nothing" shellcheck -x -P SCRIPTDIR --severity=info --exclude=SC2016 "${scripts[@]}"
