#!/usr/bin/env bash
# The protocol as a model (protocol.pml), checked exhaustively by spin: model.sh safety | liveness | mutations | all.
#
# Mutations take one guard each away, and the model must then fail at the assertion that the guard is there for: one
# that passes says that the guard is for nothing or that the model no longer sees it. F is the number of faults: for a
# mutation the smallest with which it fails, for the protocol 2 here and 3 with KILN_MODEL_FULL=1 (a few minutes).
. "$(dirname "$0")/../scripts/claims.sh"

model=$root/tests/model/protocol.pml
full=${KILN_MODEL_FULL:-}

pan() { # MODE FAULTS [DEFINE...]: leaves what the checker said in $work/out
    local mode=$1 flags=(-DSAFETY -DCOLLAPSE) run=() spin=(-a "-DF=$2") define
    shift 2
    if [ "$mode" = live ]; then
        spin+=(-DLIVENESS)
        flags=(-DCOLLAPSE -DNOREDUCE -DNFAIR=4)
        run=(-a -f)
    fi
    for define; do spin+=("-D$define"); done
    rm -rf -- "$work/pan" "$work/out"
    mkdir "$work/pan"
    (cd "$work/pan" && spin "${spin[@]}" "$model" && gcc -O2 -w "${flags[@]}" -o pan pan.c) >"$work/made" 2>&1 ||
        { cat "$work/made" >&2 && return 1; }
    (cd "$work/pan" && ./pan -m100000 "${run[@]}") >"$work/out" 2>&1
}

# A search that was cut short (depth, memory) proves nothing, so it does not pass either.
holds() {
    if pan "$@" && grep -q "errors: 0" "$work/out"; then
        grep -qE "max search depth too small|Search not completed" "$work/out" || return 0
    fi
    cat "$work/out" >&2
    return 1
}

# Spin writes an assertion back without most of its blanks.
fails() { # THE ASSERTION, then as pan
    local assertion=$1
    shift
    if pan "$@" && grep -q "errors: 1" "$work/out"; then
        ! grep "pan:1:" "$work/out" | tr -d " " | grep -qF -- "$assertion" || return 0
    fi
    cat "$work/out" >&2
    return 1
}

owner='(fence[j]==myf[w])&&!((st[j]>=2))'
money='(cap[j]+rel[j])==1'
paid='paid[j]<=(1+winf[j])'
paid_once='paid[j]<=1'
sent_once='!((sent[j]&(1<<mya[w])))'
saved='!((fence[j]==myf[w]))||(st[j]>=2)'
note='natt[j]==att[j]'
discard='!(((st[j]==2)&&(fence[j]==myf[w])))'
ends='acceptancecycle'

safety() {
    local f=${full:+3}
    f=${f:-2}
    claim "safety, $f faults" holds safety "$f"
    claim "safety, $f faults, synchronous" holds safety "$f" SYNC
    claim "safety, $f faults, on_unknown fail: paid once at most" holds safety "$f" ON_UNKNOWN_FAIL
    claim "safety, $f faults, synchronous, on_unknown fail" holds safety "$f" SYNC ON_UNKNOWN_FAIL
    claim "safety, two jobs of one account" holds safety 1 J=2
}

liveness() {
    local f=${full:+2}
    f=${f:-1}
    claim "every job ends and its hold closes, $f fault(s)" holds live "$f"
    claim "the same, synchronous" holds live "$f" SYNC
    claim "without the reconciler one may not" fails "$ends" live 1 M_NORECONCILER
    claim "without the reaper one may not" fails "$ends" live 1 M_NOREAPER
    claim "without the resync one may not" fails "$ends" live 1 M_NORESYNC
}

mutations() {
    claim "without the fence a stale worker writes" fails "$owner" safety 1 M_NOFENCE
    claim "and more is paid" fails "$paid" safety 1 M_NOFENCE M_MONEYONLY
    claim "an attempt number is no fence" fails "$owner" safety 1 M_ATTEMPT_AS_FENCE
    claim "without 'not finished' a late worker writes" fails "$owner" safety 0 M_NOFINISHED
    claim "and money moves twice" fails "$money" safety 0 M_NOFINISHED M_MONEYONLY
    claim "without the write-ahead more is paid" fails "$paid" safety 1 M_NOWRITEAHEAD
    claim "without the holder check more is paid" fails "$paid" safety 1 M_NOHOLDER
    claim "without asking again after a gap more is paid" fails "$paid" safety 1 M_NOGAP
    claim "'unsent' believed of another's attempt sends it twice" fails "$sent_once" safety 2 M_UNSENTANY
    claim "a no that is believed sends it again" fails "$paid_once" safety 1 M_BELIEVENO ON_UNKNOWN_FAIL
    claim "a reference found by asking is polled before it is on disk" fails "$saved" safety 1 M_POLLUNSAVED
    claim "a note of another attempt gives its reference" fails "$note" safety 3 NOASK M_NOTEANY
    claim "a settle that deletes would delete what was charged" fails "$discard" safety 1 M_DISCARD
}

# Every guard that the model's header names is tried here, so that a new one is not forgotten.
complete() {
    local name
    while read -r name; do
        grep -qE "^    claim .* $name( |\$)" "$root/tests/model/model.sh" || [ "$name" = M_MONEYONLY ] ||
            { printf '%s is not tried\n' "$name" >&2 && return 1; }
    done < <(grep -oE '\bM_[A-Z]+(_[A-Z]+)*' "$model" | sort -u)
}

case ${1:-all} in
safety | liveness) "$1" ;;
mutations)
    claim "every mutation of the model is tried" complete
    mutations
    ;;
all)
    claim "every mutation of the model is tried" complete
    safety && liveness && mutations
    ;;
*) printf 'usage: %s safety | liveness | mutations | all\n' "$0" >&2 && exit 2 ;;
esac
