/* judge.h - runs the oracle (a program of its own) over a house. */
#ifndef KILN_JUDGE_H
#define KILN_JUDGE_H
#include "tests/integration/house/house.h"

/* The oracle's exit code; what it printed in *out, free() it. options: more of its options; "" none. */
int judge(const struct house *h, const char *options, char **out);
#endif
