/* text_time.c - UUIDs, RFC 3339 and HTTP dates. Calendar arithmetic is our own: timegm is no POSIX, and mktime and
 * strptime depend on zone and locale. */
#include "common/base/text.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "common/base/clock.h"

static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

/* Days since 1970-01-01 of a day of the proleptic Gregorian calendar (Howard Hinnant's civil algorithms). */
static int64_t days_from_civil(int64_t y, int m, int d)
{
    int64_t era, doe;
    int yoe, doy;

    y -= m <= 2;
    era = (y >= 0 ? y : y - 399) / 400;
    yoe = (int)(y - era * 400);
    doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + doe - 719468;
}

static void civil_from_days(int64_t z, int *y, int *m, int *d)
{
    int64_t era, year;
    int doe, yoe, doy, mp;

    z += 719468;
    era = (z >= 0 ? z : z - 146096) / 146097;
    doe = (int)(z - era * 146097);
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    year = yoe + era * 400;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    mp = (5 * doy + 2) / 153;
    *d = doy - (153 * mp + 2) / 5 + 1;
    *m = mp < 10 ? mp + 3 : mp - 9;
    *y = (int)(year + (*m <= 2));
}

static bool date_valid(int y, int m, int d)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool is_leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    return m >= 1 && m <= 12 && d >= 1 && d <= days[m - 1] + (m == 2 && is_leap);
}

/* Exactly `n` digits at *s, which moves on. */
static bool digits(const char **s, int n, int *out)
{
    int value = 0;
    for (int i = 0; i < n; i++, (*s)++) {
        if (**s < '0' || **s > '9')
            return false;
        value = value * 10 + (**s - '0');
    }
    *out = value;
    return true;
}

static bool literal(const char **s, const char *want)
{
    size_t n = strlen(want);
    if (strncmp(*s, want, n) != 0)
        return false;
    *s += n;
    return true;
}

static bool clock_part(const char **s, int *seconds)
{
    int h, m, sec;
    if (!digits(s, 2, &h) || !literal(s, ":") || !digits(s, 2, &m) || !literal(s, ":") || !digits(s, 2, &sec))
        return false;
    if (h > 23 || m > 59 || sec > 60)
        return false;
    *seconds = h * 3600 + m * 60 + sec;
    return true;
}

static void digits_put(char *out, int n, int value)
{
    for (; n > 0; value /= 10)
        out[--n] = (char)('0' + value % 10);
}

void rfc3339_ms(char out[RFC3339_TEXT], int64_t wall_ms)
{
    const int64_t day_ms = 86400000, first = -62167219200000, last = 253402300799999; /* years 0000 to 9999 */
    int64_t days, rest;
    int y, m, d;

    wall_ms = wall_ms < first ? first : wall_ms > last ? last : wall_ms;
    days = wall_ms / day_ms - (wall_ms % day_ms < 0);
    rest = wall_ms - days * day_ms;
    civil_from_days(days, &y, &m, &d);
    memcpy(out, "0000-00-00T00:00:00.000Z", RFC3339_TEXT);
    digits_put(out, 4, y); /* each line of the log has one: no printf */
    digits_put(out + 5, 2, m);
    digits_put(out + 8, 2, d);
    digits_put(out + 11, 2, (int)(rest / 3600000));
    digits_put(out + 14, 2, (int)(rest / 60000 % 60));
    digits_put(out + 17, 2, (int)(rest / 1000 % 60));
    digits_put(out + 20, 3, (int)(rest % 1000));
}

static bool offset_part(const char **s, int *seconds)
{
    int sign = **s == '-' ? -1 : 1, h, m;

    if (**s == 'Z' || **s == 'z') {
        (*s)++;
        *seconds = 0;
        return true;
    }
    if (**s != '+' && **s != '-')
        return false;
    (*s)++;
    if (!digits(s, 2, &h) || !literal(s, ":") || !digits(s, 2, &m) || h > 23 || m > 59)
        return false;
    *seconds = sign * (h * 3600 + m * 60);
    return true;
}

enum err rfc3339_parse(const char *s, int64_t *wall_ms)
{
    int y, m, d, seconds, offset, ms = 0, scale = 100;

    if (!s || !digits(&s, 4, &y) || !literal(&s, "-") || !digits(&s, 2, &m) || !literal(&s, "-") || !digits(&s, 2, &d))
        return ERR_ARGUMENT;
    if (*s != 'T' && *s != 't' && *s != ' ')
        return ERR_ARGUMENT;
    s++;
    if (!date_valid(y, m, d) || !clock_part(&s, &seconds))
        return ERR_ARGUMENT;
    if (*s == '.') {
        s++;
        if (*s < '0' || *s > '9')
            return ERR_ARGUMENT;
        for (; *s >= '0' && *s <= '9'; s++, scale /= 10)
            ms += (*s - '0') * scale; /* scale is 0 from the fourth digit on */
    }
    if (!offset_part(&s, &offset) || *s != 0)
        return ERR_ARGUMENT;
    *wall_ms = (days_from_civil(y, m, d) * 86400 + seconds - offset) * 1000 + ms;
    return ERR_OK;
}

static bool month_part(const char **s, int *m)
{
    for (int i = 0; i < 12; i++) {
        if (strncmp(*s, months + 3 * i, 3) == 0) {
            *s += 3;
            *m = i + 1;
            return true;
        }
    }
    return false;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" after the blank, or "Sunday, 06-Nov-94 08:49:37 GMT". */
static bool http_date_comma(const char *s, int *y, int *m, int *d, int *seconds)
{
    bool is_850;

    if (!literal(&s, ", ") || !digits(&s, 2, d))
        return false;
    is_850 = *s == '-';
    s++;
    if ((!is_850 && s[-1] != ' ') || !month_part(&s, m) || *s != (is_850 ? '-' : ' '))
        return false;
    s++;
    if (!digits(&s, is_850 ? 2 : 4, y))
        return false;
    if (is_850)
        *y += *y < 70 ? 2000 : 1900;
    return literal(&s, " ") && clock_part(&s, seconds) && literal(&s, " GMT") && *s == 0;
}

/* "Sun Nov  6 08:49:37 1994" after the day's name. */
static bool http_date_asctime(const char *s, int *y, int *m, int *d, int *seconds)
{
    if (!literal(&s, " ") || !month_part(&s, m) || !literal(&s, " "))
        return false;
    if (*s == ' ') {
        s++;
        if (!digits(&s, 1, d))
            return false;
    } else if (!digits(&s, 2, d)) {
        return false;
    }
    return literal(&s, " ") && clock_part(&s, seconds) && literal(&s, " ") && digits(&s, 4, y) && *s == 0;
}

enum err http_date_parse(const char *s, int64_t *wall_s)
{
    int y = 0, m = 0, d = 0, seconds = 0;
    size_t name;
    bool ok;

    if (!s)
        return ERR_ARGUMENT;
    name = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
    if (name < 3)
        return ERR_ARGUMENT;
    ok = s[name] == ',' ? http_date_comma(s + name, &y, &m, &d, &seconds)
                        : http_date_asctime(s + name, &y, &m, &d, &seconds);
    if (!ok || !date_valid(y, m, d))
        return ERR_ARGUMENT;
    *wall_s = days_from_civil(y, m, d) * 86400 + seconds;
    return ERR_OK;
}

static void uuid_print(char out[UUID_TEXT], const unsigned char b[UUID_BYTES])
{
    static const char hex[] = "0123456789abcdef";

    for (int i = 0; i < UUID_BYTES; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *out++ = '-';
        *out++ = hex[b[i] >> 4];
        *out++ = hex[b[i] & 15];
    }
    *out = 0;
}

/* A request draws two ids: random bytes come in blocks, one system call for dozens of them. Each thread has its own. */
static void uuid_draw(unsigned char *out, size_t len)
{
    static _Thread_local unsigned char block[512];
    static _Thread_local size_t left;

    if (left < len) {
        random_bytes(block, sizeof block);
        left = sizeof block;
    }
    left -= len;
    memcpy(out, block + left, len);
    memset(block + left, 0, len); /* an id may be a secret: it is in one place only */
}

void uuid_v7(char out[UUID_TEXT])
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static uint64_t last; /* milliseconds and the 12-bit counter as one number: it only ever grows */
    unsigned char b[UUID_BYTES];
    uint64_t now = (uint64_t)clock_wall_ms() << 12, stamp;

    (void)pthread_mutex_lock(&lock); /* plain mutex: cannot fail */
    last = stamp = now > last ? now : last + 1;
    (void)pthread_mutex_unlock(&lock);

    uuid_draw(b + 8, 8);
    for (int i = 0; i < 6; i++)
        b[i] = (unsigned char)(stamp >> (12 + 8 * (5 - i)));
    b[6] = (unsigned char)(0x70 | (stamp >> 8 & 0x0f));
    b[7] = (unsigned char)stamp;
    b[8] = (unsigned char)(0x80 | (b[8] & 0x3f));
    uuid_print(out, b);
}

void uuid_random(char out[UUID_TEXT])
{
    unsigned char b[UUID_BYTES];
    uuid_draw(b, sizeof b);
    b[6] = (unsigned char)(0x40 | (b[6] & 0x0f));
    b[8] = (unsigned char)(0x80 | (b[8] & 0x3f));
    uuid_print(out, b);
}

bool uuid_bytes(unsigned char out[UUID_BYTES], const char *s)
{
    char lower[UUID_TEXT];
    size_t digits = 0;

    if (!uuid_lower(lower, s))
        return false;
    for (const char *at = lower; *at; at++) { /* each known id is looked up by its bytes: no general decoder */
        if (*at == '-')
            continue;
        unsigned digit = (unsigned)(*at <= '9' ? *at - '0' : *at - 'a' + 10);
        out[digits / 2] = (unsigned char)(digits % 2 ? out[digits / 2] | digit : digit << 4);
        digits++;
    }
    return true;
}

bool uuid_valid(const char *s)
{
    char lower[UUID_TEXT];
    return uuid_lower(lower, s);
}

bool uuid_lower(char out[UUID_TEXT], const char *s)
{
    char copy[UUID_TEXT];

    if (!s)
        return false;
    for (int i = 0; i < UUID_TEXT - 1; i++) {
        char c = s[i];
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (c != '-')
                return false;
        } else if (c >= 'A' && c <= 'F') {
            c = (char)(c - 'A' + 'a');
        } else if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return false;
        }
        copy[i] = c;
    }
    if (s[UUID_TEXT - 1] != 0)
        return false;
    copy[UUID_TEXT - 1] = 0;
    memcpy(out, copy, sizeof copy);
    return true;
}
