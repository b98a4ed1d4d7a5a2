/* options.h - see criterion.h: tests run one by one, so the number of jobs is heard and forgotten. */
#ifndef KILN_PLAIN_OPTIONS_H
#define KILN_PLAIN_OPTIONS_H
#include <stddef.h>

extern struct plain_options {
    size_t jobs;
} criterion_options;
#endif
