/* netguard.h - which addresses may be dialled for a URL that a user or a provider gave.
 *
 * Rules of security.md (S1-S4): only global unicast; v4-mapped, v4-compatible, NAT64 and 6to4 are judged by the v4
 * address inside; the machine's own addresses are refused. Fails closed. */
#ifndef KILN_NETGUARD_H
#define KILN_NETGUARD_H
#include <stdbool.h>
#include <sys/socket.h>

bool netguard_allows(const struct sockaddr *address);
bool netguard_allows_text(const char *ip); /* "::1", "10.0.0.1"; false for anything that is no address */
#endif
