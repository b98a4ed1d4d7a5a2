/* test_partial.c - some of what was ordered came: that much is delivered and charged, the rest of the hold released. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/integration/house/cases.h"

SUPPORT_SERVICES();

enum { LIMIT_MS = 90000 };

#define DALLE4 ",\"model\":\"dall-e-2\",\"size\":\"256x256\",\"n\":4"
#define GPT4   ",\"quality\":\"low\",\"n\":4"
#define LEO4   ",\"width\":256,\"height\":256,\"alchemy\":false,\"num_images\":4"

struct part {
    struct want want;
    int delivered, ordered;
};

static int64_t sql_of(const struct house *h, const char *tag, const char *what)
{
    char sql[512];

    (void)snprintf(sql, sizeof(sql),
                   "select coalesce((select %s), 0) from jobs j where j.params->>'prompt' like '%%[[job:%s]]%%'", what,
                   tag);
    return support_sql_int(h->db, sql);
}

static void expect_books(const struct house *h, const struct part *p)
{
    const char *tag = p->want.tag;
    int64_t unit = (int64_t)(p->want.charged * 1000 + 0.5) / (p->delivered ? p->delivered : 1);

    cr_expect_eq(sql_of(h, tag, "count(*) from artifacts a where a.job_id = j.id"), p->delivered, "%s: artifacts", tag);
    cr_expect_eq(sql_of(h, tag, "count(distinct sha256) from artifacts a where a.job_id = j.id"), p->delivered,
                 "%s: different pictures", tag);
    cr_expect_eq(sql_of(h, tag, "amount from ledger l where l.job_id = j.id and kind = 'hold'"), unit * p->ordered,
                 "%s: held for all", tag);
    cr_expect_eq(sql_of(h, tag, "amount from ledger l where l.job_id = j.id and kind = 'capture'"), unit * p->delivered,
                 "%s: captured what came", tag);
    cr_expect_eq(sql_of(h, tag, "amount from ledger l where l.job_id = j.id and kind = 'release'"),
                 unit * (p->ordered - p->delivered), "%s: released the rest", tag);
}

Test(partial, what_came_is_captured_and_the_rest_released)
{
    static const struct part list[] = {
        { { "all4", GPT, NULL, GPT4, NULL, false, 4 * GPT_LOW, 1, 1, 1, 0, NULL }, 4, 4 },
        { { "gpt3", GPT, "partial=3", GPT4, NULL, false, 3 * GPT_LOW, 1, 1, 1, 0, NULL }, 3, 4 },
        { { "blank", GPT, "blank,at=download,times=1", DALLE4, NULL, false, 3 * DALLE_SMALL, 1, 1, 1, 0, NULL }, 3, 4 },
        { { "gone", GPT, "download_status=404,times=1", DALLE4, NULL, false, 3 * DALLE_SMALL, 1, 1, 1, 0, NULL },
          3,
          4 },
        { { "both", GPT, "partial=3]][[fault:blank,at=download,times=1", DALLE4, NULL, false, 2 * DALLE_SMALL, 1, 1, 1,
            0, NULL },
          2,
          4 },
        { { "leo3", LEO, "partial=3", LEO4, NULL, false, 3 * LEO_SMALL, 1, 1, 1, 0, NULL }, 3, 4 },
        { { "leoblank", LEO, "blank,at=download,times=3", LEO4, NULL, false, LEO_SMALL, 1, 1, 1, 0, NULL }, 1, 4 },
        { { "nsfw", LEO, "nsfw", LEO4, NULL, false, 4 * LEO_SMALL, 1, 1, 1, 0, NULL },
          4,
          4 }, /* flagged, not removed */
    };
    static const struct house_options options = { .catalog = CATALOG_LEO("") };
    struct want wants[sizeof(list) / sizeof(list[0])];
    struct house *h = house_open(&options);

    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        wants[i] = list[i].want;
    cases_run(h, wants, sizeof(list) / sizeof(list[0]), LIMIT_MS);
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        expect_books(h, &list[i]);
    house_close(h);
}
