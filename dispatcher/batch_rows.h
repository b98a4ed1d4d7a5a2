/* batch_rows.h - the jobs of a batch as kiln_accept_batch wants them: by column, growing (text, but for the ids).
 * Whatever is in the row and in the envelope is printed once. No I/O and no loop: made on the thread pool. */
#ifndef KILN_BATCH_ROWS_H
#define KILN_BATCH_ROWS_H
#include "common/core/ledger.h"
#include "dispatcher/accept_one.h"

enum { BATCH_COLUMNS = 15 };

struct batch_rows { /* zeroed */
    struct buf columns[BATCH_COLUMNS];
    size_t count;
    bool has[BATCH_COLUMNS];      /* somebody has a value there */
    size_t shared[BATCH_COLUMNS]; /* bytes of the one value that stands for all rows; 0: each has its own */
    size_t from;                  /* where the value begins that is being written */
};

/* One row more, and the job's envelope (malloc'd; NULL: "read it in PostgreSQL"). False: no memory. */
bool batch_rows_add(struct batch_rows *rows, const struct accept_one *one, char **envelope);
bool batch_rows_end(struct batch_rows *rows);                                  /* no row after this */
void batch_rows_fill(const struct batch_rows *rows, struct ledger_batch *out); /* borrowed */
void batch_rows_done(struct batch_rows *rows);
#endif
