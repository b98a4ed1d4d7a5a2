/* protocol.pml - the core protocol of kiln as a model, small enough to be checked exhaustively. protocol.md is the text;
 * the names of steps and functions are the same.
 *
 * One or two jobs of one account, two workers, a reconciler, a reaper, a user who may cancel at any moment, and a
 * provider that is paid the moment a request leaves and then answers at once (-DSYNC) or hands out a reference (default).
 * A PostgreSQL step is atomic because it is one statement under row locks. Redis is not trusted with anything: a fault
 * may put any job in any place there and bring back any note it ever held (FLUSHALL, old AOF, lossy fail-over, stale
 * publish, lost claim reply). The adversary has F faults in any mix, at any step: a worker dies and restarts; a worker
 * stalls, is declared dead, and comes back in the middle of what it did; a reply of PostgreSQL is lost after the
 * commit; the provider's connection is cut (a provider that hands out references may be asked afterwards, and may say
 * nothing or that it has the request); a drain hands a waiting job back; Redis lies.
 *
 * Run:  spin -a -DF=3 protocol.pml && gcc -O2 -w -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m100000
 *       add -DSYNC, -DON_UNKNOWN_FAIL (the policy `fail`), -DJ=2 -DF=1 (two jobs) to the spin line
 *       liveness:  spin -a -DF=2 -DLIVENESS protocol.pml
 *                  gcc -O2 -w -DCOLLAPSE -DNOREDUCE -DNFAIR=4 -o pan pan.c && ./pan -m100000 -a -f
 *       a trail:   spin -t -p -g -DF=3 protocol.pml
 *
 * What is checked
 *   (a) a job is captured or released, once: never twice, never both (finish)
 *   (b) every job ends and its hold is closed once faults have stopped (ltl live, weak fairness)
 *   (c) paid submits: at most 1 with ON_UNKNOWN_FAIL; else at most 1 + the deaths, stalls and cuts of the owner between
 *       send and checkpoint (or settle), and never more than 2; no new attempt while a reference is on disk; an attempt
 *       row is sent at most once
 *   (d) a worker whose job has been started by another since changes nothing
 *
 * Every guard earns its keep: with one of these on the spin line, F=3, the model must FAIL
 *   M_NOFENCE            writes look only at "not finished"                          (d), and (c) with M_MONEYONLY
 *   M_ATTEMPT_AS_FENCE   the attempt number is the fence; a take-over does not raise it                         (d)
 *   M_NOFINISHED         writes do not look whether the job has finished             (d), and (a) with M_MONEYONLY
 *   M_NOWRITEAHEAD       the attempt is not on disk before the request leaves                                   (c)
 *   M_NOHOLDER           whoever claims may start, though the holder lives (leases kept in Redis)               (c)
 *   M_NOGAP              after a gap in its heartbeats a worker sends without asking again                      (c)
 *   M_UNSENTANY          "I have not sent it" is believed of an attempt that another opened                     (c)
 *   M_BELIEVENO          "I do not have it" is taken for "I never got it", so that it is free to send again     (c)
 *   M_POLLUNSAVED        a reference found by asking is polled without a checkpoint                             (c)
 *   M_NOTEANY            a note from Redis is believed without its attempt number                 wrong reference
 *   M_DISCARD            a settle that hit nothing throws its artifacts away            deletes what was charged
 *   M_NORECONCILER, M_NOREAPER, M_NORESYNC  with LIVENESS, F=1                                                   (b)
 */
#ifndef J
#define J 1                     /* jobs of one account: 1 or 2 */
#endif
#ifndef F
#define F 3                     /* faults the adversary may spend, in any mix and at any step */
#endif

/* --- PostgreSQL: what is true ------------------------------------------------------------------------------------ */
#define QUEUED 0
#define RUNNING 1
#define SUCC 2
#define FAIL 3
#define CANC 4
#define GHOST 3                 /* jobs.holder: 0 nobody, 1 and 2 the workers, GHOST an incarnation that has died */
#define NOATT 0                 /* the job's open attempt: none, written ahead, or with the provider's reference */
#define SENT 1
#define REF 2
byte st[J], fence[J], holder[J], att[J], ast[J], ofence[J], unk[J], cap[J], rel[J];
bit  dead[3];                   /* workers.dead_at: set after silence, cleared by the worker's next heartbeat */
byte acct_held = J, acct_spent;

/* --- Redis: a hint ----------------------------------------------------------------------------------------------- */
#define ABSENT 0
#define READY 1
#define CL(w) (1+(w))
#define CLGHOST 4
byte place[J], nkind[J], natt[J];               /* the note: 1 a reference, 2 a result, 3 a refusal, and of which attempt */
byte hist[J], hist3[J];                         /* every note ever written, for an old AOF to bring back */

/* --- a worker's memory ------------------------------------------------------------------------------------------- */
#define IDLE 0
#define START 1
#define CHECK 2
#define SEND 3
#define NOTE 4
#define CKPT 5
#define POLL 6
#define SETTLE 7
#define ACK 8
#define RETURN 9
#define ASK 10                  /* what became of a submit of which nobody knows? */
#if defined(SYNC) || defined(NOASK)
#define LOST SETTLE             /* the provider cannot be asked: a smaller search */
#else
#define LOST ASK
#endif
#define OKAY 1
#define BAD 2
#define REFUSED 3
#define UNKNOWN 4
byte pc[3], job[3], myf[3], mya[3], out[3];
bit  unsent[3], gap[3], stalled[3];

/* --- the adversary's budget, and ghosts that only assertions read ------------------------------------------------ */
byte faults, paid[J], winf[J], sent[J];
bit  cancelled[J];

#define DONE(j)    (st[j] >= SUCC)
#define OWNER(w,j) (fence[j] == myf[w])         /* nobody has started the job after w did */
#define HOLDS(w,j) (pc[w] != IDLE && job[w] == j)
#define INWIN(w)   (pc[w] >= SEND && pc[w] <= SETTLE && out[w] != UNKNOWN && out[w] != REFUSED && \
                    ast[job[w]] == SENT && OWNER(w, job[w]))

/* --- the guards, and the mutations that remove one each ---------------------------------------------------------- */
#if defined(M_NOFENCE)
#define GUARD(w,j) (st[j] == RUNNING)
#elif defined(M_NOFINISHED)
#define GUARD(w,j) (holder[j] == w && fence[j] == myf[w])
#elif defined(M_ATTEMPT_AS_FENCE)
#define GUARD(w,j) (st[j] == RUNNING && att[j] == mya[w])
#else
#define GUARD(w,j) (st[j] == RUNNING && holder[j] == w && fence[j] == myf[w])
#endif
#ifdef M_NOHOLDER
#define FREE(w,j) true
#else
#define FREE(w,j) (holder[j] == 0 || holder[j] == GHOST || holder[j] == w || dead[holder[j]])
#endif
#ifdef M_NOTEANY
#define NOTED(j,k) (nkind[j] == k)
#else
#define NOTED(j,k) (nkind[j] == k && natt[j] == att[j])
#endif

#ifdef M_UNSENTANY
#define OPENED(j) true
#else
#define OPENED(j) (ofence[j] == fence[j])
#endif
#ifdef M_MONEYONLY              /* not a mutation: (d) is not asserted, so that one sees what happens to the money */
#define WRITES(w,j) true
#define SAVED(w,j) true
#else
#define WRITES(w,j) (OWNER(w, j) && !DONE(j))
#define SAVED(w,j) (!OWNER(w, j) || DONE(j) || ast[j] == REF)
#endif

inline finish(j, s)             /* kiln_finish: the only way a job ends; state and money in one statement */
{
    st[j] = s; ast[j] = NOATT;
    if
    :: s == SUCC -> cap[j]++; acct_spent++
    :: else -> rel[j]++
    fi;
    assert(cap[j] + rel[j] == 1 && acct_held > 0);                       /* (a) */
    acct_held--
}

inline drop(w)     { pc[w] = IDLE; job[w] = 0; myf[w] = 0; mya[w] = 0; out[w] = 0; unsent[w] = 0 }
inline leave(w, j) { if :: DONE(j) -> pc[w] = ACK :: else -> pc[w] = RETURN fi }
inline own(w, j)   { holder[j] = w; myf[w] = fence[j]; mya[w] = att[j] }

inline open_attempt(w, j)       /* the write-ahead */
{
    assert(ast[j] != REF);                                               /* (c) no new intent over a reference */
    att[j]++; st[j] = RUNNING; ofence[j] = fence[j];
#ifdef M_NOWRITEAHEAD
    ast[j] = NOATT;
#else
    ast[j] = SENT;
#endif
    pc[w] = CHECK
}

inline kiln_start(w, j)
{
    if
    :: DONE(j) -> pc[w] = ACK
    :: st[j] == QUEUED -> fence[j]++; open_attempt(w, j); own(w, j)
    :: st[j] == RUNNING ->
        if
        :: unsent[w] && holder[j] == w && OPENED(j) ->                   /* mine, opened by me, never sent: go on */
            own(w, j); pc[w] = CHECK
        :: else ->
            if
            :: !FREE(w, j) -> pc[w] = RETURN                             /* busy: its holder lives */
            :: else -> fence[j]++; own(w, j);                            /* take over */
                if
                :: ast[j] == REF -> pc[w] = POLL
                :: ast[j] == SENT && NOTED(j, 1) -> assert(natt[j] == att[j]); ast[j] = REF; pc[w] = POLL
                :: ast[j] == SENT && NOTED(j, 2) -> assert(natt[j] == att[j]); out[w] = OKAY; pc[w] = SETTLE
                :: ast[j] == SENT && NOTED(j, 3) -> assert(natt[j] == att[j]); out[w] = REFUSED; pc[w] = SETTLE
                :: ast[j] == SENT && !NOTED(j, 1) && !NOTED(j, 2) && !NOTED(j, 3) -> out[w] = UNKNOWN; pc[w] = LOST
                :: ast[j] == NOATT -> open_attempt(w, j); own(w, j)      /* only without the write-ahead */
                fi
            fi
        fi
    fi;
    unsent[w] = 0
}

inline kiln_settle(w, j)
{
    if
    :: GUARD(w, j) ->
        assert(WRITES(w, j));                                 /* (d) */
        if
        :: out[w] == OKAY -> finish(j, SUCC); pc[w] = ACK
        :: out[w] == BAD -> finish(j, FAIL); pc[w] = ACK
        :: out[w] == REFUSED -> st[j] = QUEUED; ast[j] = NOATT; holder[j] = 0; pc[w] = RETURN
        :: out[w] == UNKNOWN ->
            unk[j]++;
            if
#ifndef ON_UNKNOWN_FAIL
            :: unk[j] == 1 -> st[j] = QUEUED; ast[j] = NOATT; holder[j] = 0; pc[w] = RETURN
#endif
            :: else -> finish(j, FAIL); pc[w] = ACK
            fi
        fi
    :: else ->                  /* stale, late, or my own earlier commit whose reply was lost: nothing changes */
#ifdef M_DISCARD
        assert(!(st[j] == SUCC && fence[j] == myf[w]));                  /* would delete what has been charged */
#endif
        leave(w, j)
    fi
}

#define GO(w) (!stalled[w])

proctype Worker(byte w)
{
    byte j;
end:
    do
    :: d_step { GO(w) && pc[w] == IDLE && place[0] == READY -> place[0] = CL(w); job[w] = 0; pc[w] = START }
#if J > 1
    :: d_step { GO(w) && pc[w] == IDLE && place[1] == READY -> place[1] = CL(w); job[w] = 1; pc[w] = START }
#endif
    :: atomic { GO(w) && pc[w] == START && !dead[w] -> j = job[w]; kiln_start(w, j); j = 0;
        if
        :: true
        :: faults < F -> faults++; unsent[w] = 1; out[w] = 0; pc[w] = START    /* reply lost; I know I sent nothing */
        fi }
#ifdef M_NOGAP
    :: d_step { GO(w) && pc[w] == CHECK -> pc[w] = SEND }
#else
    :: d_step { GO(w) && pc[w] == CHECK && !gap[w] -> pc[w] = SEND }
#endif
    :: d_step { GO(w) && pc[w] == CHECK && gap[w] && !dead[w] ->         /* beats had a gap: beat, then ask again */
        gap[w] = 0; unsent[w] = 1; pc[w] = START }
    :: atomic { GO(w) && pc[w] == SEND -> j = job[w];
        assert(!(sent[j] & (1 << mya[w])));                              /* an attempt is sent at most once */
        sent[j] = sent[j] | (1 << mya[w]);
        if
        :: true -> paid[j]++; out[w] = OKAY;
#ifdef SYNC
            pc[w] = SETTLE
#else
            pc[w] = NOTE
#endif
        :: att[j] < 2 -> out[w] = REFUSED; pc[w] = SETTLE                /* 429, 503, never connected: free */
        :: faults < F -> faults++; paid[j]++; out[w] = UNKNOWN; pc[w] = LOST;      /* connection cut */
            if :: OWNER(w, j) -> winf[j]++ :: else fi
        fi;
#ifdef ON_UNKNOWN_FAIL
        assert(paid[j] <= 1);                                            /* (c) */
#else
        assert(paid[j] <= 1 + winf[j] && paid[j] <= 2);                  /* (c) */
#endif
        j = 0 }
#ifndef SYNC
    :: d_step { GO(w) && pc[w] == ASK ->                                 /* no, silence, or it cannot be asked: no proof */
#ifdef M_BELIEVENO
        out[w] = REFUSED;
#endif
        pc[w] = SETTLE }
    :: d_step { GO(w) && pc[w] == ASK && paid[job[w]] > 0 -> out[w] = OKAY;      /* yes, and here is its reference */
#ifdef M_POLLUNSAVED
        pc[w] = POLL
#else
        pc[w] = NOTE
#endif
        }
    :: d_step { GO(w) && pc[w] == NOTE -> j = job[w];                    /* the reference: into Redis at once ... */
        if
        :: place[j] == CL(w) -> nkind[j] = 1; natt[j] = mya[w]; hist[j] = hist[j] | (1 << (2*mya[w]))
        :: else
        fi; pc[w] = CKPT; j = 0 }
    :: d_step { GO(w) && pc[w] == CKPT -> j = job[w];                    /* ... and into PostgreSQL before any poll */
        if
        :: GUARD(w, j) -> assert(WRITES(w, j)); ast[j] = REF; pc[w] = POLL      /* (d) */
        :: else -> leave(w, j)
        fi; j = 0 }
    :: d_step { GO(w) && pc[w] == POLL -> j = job[w];
        assert(SAVED(w, j));                                             /* (c) no poll before the reference is on disk */
        out[w] = OKAY; pc[w] = SETTLE; j = 0 }
    :: d_step { GO(w) && pc[w] == POLL -> out[w] = BAD; pc[w] = SETTLE }
    :: d_step { GO(w) && pc[w] == POLL && faults < F -> faults++; j = job[w];              /* drain: hand back */
        if
        :: GUARD(w, j) -> assert(WRITES(w, j)); holder[j] = 0
        :: else
        fi; pc[w] = RETURN; j = 0 }
#endif
    :: d_step { GO(w) && pc[w] == SETTLE && out[w] == OKAY && place[job[w]] == CL(w) && !(nkind[job[w]] == 2) ->
        j = job[w]; nkind[j] = 2; natt[j] = mya[w]; hist[j] = hist[j] | (1 << (2*mya[w]+1)); j = 0 }     /* park */
    :: d_step { GO(w) && pc[w] == SETTLE && out[w] == REFUSED && place[job[w]] == CL(w) && !(nkind[job[w]] == 3) ->
        j = job[w]; nkind[j] = 3; natt[j] = mya[w]; hist3[j] = hist3[j] | (1 << mya[w]); j = 0 }             /* park */
    :: atomic { GO(w) && pc[w] == SETTLE -> j = job[w]; kiln_settle(w, j); j = 0;
        if
        :: true
        :: faults < F -> faults++; pc[w] = SETTLE                        /* reply lost: settle again */
        fi }
    :: d_step { GO(w) && pc[w] == ACK -> j = job[w]; place[j] = ABSENT; nkind[j] = 0; natt[j] = 0; drop(w); j = 0 }
    :: d_step { GO(w) && pc[w] == RETURN -> j = job[w];
        if
        :: place[j] == CL(w) -> place[j] = READY
        :: else
        fi; drop(w); j = 0 }
    od
}

proctype Helpers(byte j)        /* reconciler, reaper, and what a living worker finds that it is said to hold */
{
end:
    do
#ifndef M_NORECONCILER
    :: d_step { !DONE(j) && place[j] == ABSENT -> place[j] = READY }
#endif
#ifndef M_NOREAPER
    :: d_step { place[j] == CLGHOST -> place[j] = READY }
    :: d_step { place[j] == CL(1) && dead[1] -> place[j] = READY }
    :: d_step { place[j] == CL(2) && dead[2] -> place[j] = READY }
#endif
#ifndef M_NORESYNC
    :: d_step { GO(1) && !HOLDS(1, j) && place[j] == CL(1) -> place[j] = READY }
    :: d_step { GO(2) && !HOLDS(2, j) && place[j] == CL(2) -> place[j] = READY }
    :: d_step { GO(1) && !HOLDS(1, j) && st[j] == RUNNING && holder[j] == 1 -> holder[j] = 0 }
    :: d_step { GO(2) && !HOLDS(2, j) && st[j] == RUNNING && holder[j] == 2 -> holder[j] = 0 }
#endif
    od
}

proctype Lapse(byte w)  { end: do :: d_step { stalled[w] && !dead[w] -> dead[w] = 1; gap[w] = 1 } od }
proctype Resume(byte w) { end: do :: stalled[w] -> stalled[w] = 0 od }
proctype Beat(byte w)   { end: do :: d_step { GO(w) && dead[w] -> dead[w] = 0 } od }

#ifdef LIVENESS
bit tick;
proctype Clock() { do :: tick = 1 od }              /* time goes on: a state in which nobody can help is a run too */
#endif

inline crash(w)                 /* and restart, as a new incarnation */
{
    if :: INWIN(w) && pc[w] > SEND -> winf[job[w]]++ :: else fi;
    if :: holder[0] == w && !DONE(0) -> holder[0] = GHOST :: else fi;
    if :: place[0] == CL(w) -> place[0] = CLGHOST :: else fi;
#if J > 1
    if :: holder[1] == w && !DONE(1) -> holder[1] = GHOST :: else fi;
    if :: place[1] == CL(w) -> place[1] = CLGHOST :: else fi;
#endif
    drop(w); stalled[w] = 0; dead[w] = 0; gap[w] = 0
}

inline stall(w) { if :: INWIN(w) -> winf[job[w]]++ :: else fi; stalled[w] = 1 }

proctype World()                /* the adversary, and the user who may cancel */
{
    byte j;
end:
    do
    :: d_step { faults < F && pc[1] != IDLE -> faults++; crash(1) }
    :: d_step { faults < F && pc[2] != IDLE -> faults++; crash(2) }
    :: d_step { faults < F && pc[1] != IDLE && !stalled[1] -> faults++; stall(1) }
    :: d_step { faults < F && pc[2] != IDLE && !stalled[2] -> faults++; stall(2) }
    :: atomic { faults < F -> faults++;          /* FLUSHALL, old AOF, stale publish: any place, any earlier note */
#if J > 1
        if :: true :: j = 1 fi;
#endif
        if
        :: place[j] = ABSENT :: place[j] = READY :: place[j] = CL(1) :: place[j] = CL(2) :: place[j] = CLGHOST
        fi;
        if
        :: nkind[j] = 0; natt[j] = 0
        :: hist[j] & (1 << 2) -> nkind[j] = 1; natt[j] = 1
        :: hist[j] & (1 << 4) -> nkind[j] = 1; natt[j] = 2
        :: hist[j] & (1 << 3) -> nkind[j] = 2; natt[j] = 1
        :: hist[j] & (1 << 5) -> nkind[j] = 2; natt[j] = 2
        :: hist3[j] & (1 << 1) -> nkind[j] = 3; natt[j] = 1
        :: hist3[j] & (1 << 2) -> nkind[j] = 3; natt[j] = 2
        fi;
        j = 0 }
#ifndef NOCANCEL
    :: d_step { !cancelled[0] && !DONE(0) -> cancelled[0] = 1; finish(0, CANC);
#ifndef M_NOFINISHED
        holder[0] = 0
#endif
       }
#ifdef LIVENESS
    :: !cancelled[0] -> cancelled[0] = 1                                  /* nobody has to cancel */
#endif
#endif
    od
}

init {
    atomic {
        run Worker(1); run Worker(2); run World(); run Helpers(0);
#if J > 1
        run Helpers(1);
#endif
        run Lapse(1); run Lapse(2); run Resume(1); run Resume(2); run Beat(1); run Beat(2)
#ifdef LIVENESS
        ; run Clock()
#endif
    }
}

#if J > 1
#define CLOSED (DONE(0) && DONE(1) && acct_held == 0 && acct_spent == cap[0] + cap[1])
#else
#define CLOSED (DONE(0) && acct_held == 0 && acct_spent == cap[0])
#endif
#ifdef LIVENESS
ltl live { <> CLOSED }          /* (b) */
#endif
