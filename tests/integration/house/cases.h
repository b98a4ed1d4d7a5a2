/* cases.h - many jobs of one house at once, each with the outcome it must have.
 *
 * A case is one job: a tag by which the sandbox counts it, a fault for the sandbox, and what must be seen afterwards:
 * the state, the error as the API shows it, the charge, and how often the provider was asked and paid. */
#ifndef KILN_CASES_H
#define KILN_CASES_H
#include "tests/integration/house/house.h"

#define GPT      "openai.images.generate"
#define CORE     "stability.generate.core"
#define CREATIVE "stability.upscale.creative"
#define LEO      "leonardo.generate"

/* Prices, in credits, of the cases' parameters. */
#define GPT_LOW     0.9 /* gpt-image-1.5, low, 1024x1024 */
#define DALLE_SMALL 1.6 /* dall-e-2, 256x256 */
#define LEO_SMALL   0.2 /* an image */

/* Poll soon, so that tests do not wait for the pages' seconds. */
#define SOON_LEO          "\"poll\":{\"first_ms\":200,\"every_ms\":200}"
#define CATALOG_LEO(more) "{\"provider\":\"leonardo\",\"operations\":{\"leonardo.generate\":{" SOON_LEO more "}}}"

enum { NOT_ASKED = -1 }; /* of requests, paid, attempts: the case does not say */

struct want {
    const char *tag, *operation, *fault; /* fault: "status=503,times=2"; NULL: none */
    const char *extra;                   /* more parameters: ",\"n\":4"; NULL: the operation's small default */
    const char *code;                    /* NULL: it succeeds */
    bool retryable;
    double charged;
    int requests, paid, attempts, status; /* status: the provider's, as the error names it; 0: any */
    const char *message;                  /* a part of error.message; NULL: any that is not empty */
};

void cases_submit(const struct house *h, const struct want *want, const char *upload, char id[40]);
void cases_expect(const struct house *h, const struct want *want, const char *id, int limit_ms);
/* All at once; expects nothing held in the end and the balance lower by exactly what was charged. */
void cases_run(struct house *h, const struct want *wants, size_t count, int limit_ms);

/* When the sandbox noted the tag's request number `nth` of a phase ("submit", "poll", "download"); -1: there is none.
 */
int64_t cases_at_ms(const struct house *h, const char *tag, const char *phase, int nth);
int cases_count(const struct house *h, const char *tag, const char *phase); /* of the last 100 requests */
int64_t cases_now_ms(void);                                                 /* monotonic */
void cases_pause_ms(int ms);
#endif
