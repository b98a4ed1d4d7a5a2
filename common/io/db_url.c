/* db_url.c - from KILN_DATABASE_URL to libpq's options: the URL's own words win, ours fill the gaps. */
#include <stdio.h>
#include <string.h>
#include "common/io/db_inner.h"

bool db_options_add(struct db_options *o, const char *keyword, const char *value)
{
    for (size_t i = 0; i < o->count; i++)
        if (strcmp(o->keywords[i], keyword) == 0)
            return false;
    if (o->count + 1 >= DB_OPTIONS_MAX)
        return false;
    o->keywords[o->count] = keyword;
    o->values[o->count++] = value;
    o->keywords[o->count] = o->values[o->count] = NULL;
    return true;
}

bool db_options_read(struct db_options *o, const char *url, const char *name)
{
    char *error = NULL;

    *o = (struct db_options){ .parsed = PQconninfoParse(url, &error) };
    PQfreemem(error); /* quotes the URL, and with it a password: never shown */
    if (!o->parsed)
        return false;
    for (const PQconninfoOption *p = o->parsed; p->keyword; p++)
        if (p->val)
            (void)db_options_add(o, p->keyword, p->val);
    (void)db_options_add(o, "client_encoding", "UTF8");
    (void)db_options_add(o, "fallback_application_name", name);
    (void)db_options_add(o, "keepalives_idle", "10");
    (void)db_options_add(o, "keepalives_interval", "3");
    (void)db_options_add(o, "keepalives_count", "3");
    (void)db_options_add(o, "tcp_user_timeout", "15000");
    return true;
}

static size_t option_at(const struct db_options *o, const char *keyword)
{
    size_t i = 0;
    while (i < o->count && strcmp(o->keywords[i], keyword) != 0)
        i++;
    return i;
}

/* libpq would look a name up itself, and the loop would stand still meanwhile. Lists of hosts are left to it. */
const char *db_options_host(const struct db_options *o)
{
    size_t at = option_at(o, "host");
    const char *host = at < o->count ? o->values[at] : "";

    if (option_at(o, "hostaddr") < o->count || host[0] == '\0' || host[0] == '/' || host[0] == '@' || strchr(host, ','))
        return NULL;
    return host;
}

/* host=name,name hostaddr=1.2.3.4,::1: the name is still what a certificate is checked against. */
bool db_options_set_addresses(struct db_options *o, const struct addrinfo *list)
{
    size_t at = option_at(o, "host"), hosts = 0, addresses = 0;
    const char *host = o->values[at];
    char address[64];

    for (; list; list = list->ai_next) {
        if (getnameinfo(list->ai_addr, list->ai_addrlen, address, sizeof address, NULL, 0, NI_NUMERICHOST) != 0)
            continue;
        if (hosts + strlen(host) + 2 > sizeof o->hosts || addresses + strlen(address) + 2 > sizeof o->addresses)
            break;
        hosts += (size_t)snprintf(o->hosts + hosts, sizeof o->hosts - hosts, "%s%s", hosts ? "," : "", host);
        addresses += (size_t)snprintf(o->addresses + addresses, sizeof o->addresses - addresses, "%s%s",
                                      addresses ? "," : "", address);
    }
    o->values[at] = o->hosts;
    return addresses > 0 && db_options_add(o, "hostaddr", o->addresses);
}

void db_options_session(struct db_options *o, int statement_timeout_ms)
{
    (void)snprintf(o->session, sizeof o->session, "-c client_min_messages=warning -c statement_timeout=%d",
                   statement_timeout_ms);
    (void)db_options_add(o, "options", o->session);
}

void db_options_done(struct db_options *o)
{
    PQconninfoFree(o->parsed);
    *o = (struct db_options){ 0 };
}

enum err db_url_check(const char *url)
{
    struct db_options o;
    bool ok = url && db_options_read(&o, url, "kiln");
    if (ok)
        db_options_done(&o);
    return ok ? ERR_OK : ERR_ARGUMENT;
}
