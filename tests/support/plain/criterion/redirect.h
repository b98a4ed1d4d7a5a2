/* redirect.h - see criterion.h: what a test prints on purpose goes nowhere. */
#ifndef KILN_PLAIN_REDIRECT_H
#define KILN_PLAIN_REDIRECT_H

void cr_redirect_stdout(void);
void cr_redirect_stderr(void);
#endif
