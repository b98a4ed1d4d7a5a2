/* accounts.h - credits of an app's accounts: balance, grants, ledger. Amounts in the API are credits with at most three
 * decimals; inside they are integer millicredits. */
#ifndef KILN_ACCOUNTS_H
#define KILN_ACCOUNTS_H
#include "dispatcher/httpd.h"

void accounts_get(struct request *r);
void accounts_grant(struct request *r);
void accounts_ledger(struct request *r);
#endif
