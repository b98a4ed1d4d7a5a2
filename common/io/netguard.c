/* netguard.c - prefixes that are not for us, by family; addresses that wrap a v4 one are unwrapped first.
 *
 * IPv6 is an allow list: only 2000::/3 is handed out for global unicast, so loopback, link-local, unique local,
 * multicast, discard and SRv6 are refused without being named. security.md S1-S4; the IANA special-purpose registries.
 */
#include "common/io/netguard.h"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "common/base/text.h"

struct prefix4 {
    uint32_t address;
    int bits;
};

#define V4(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

static const struct prefix4 refused4[] = {
    { V4(0, 0, 0, 0), 8 },        /* this network; 0.0.0.0 reaches the machine itself */
    { V4(10, 0, 0, 0), 8 },       /* RFC 1918, with the next two */
    { V4(172, 16, 0, 0), 12 },    /* */
    { V4(192, 168, 0, 0), 16 },   /* */
    { V4(100, 64, 0, 0), 10 },    /* carrier NAT; Alibaba's metadata 100.100.100.200 */
    { V4(127, 0, 0, 0), 8 },      /* loopback */
    { V4(169, 254, 0, 0), 16 },   /* link-local; metadata of nearly every cloud */
    { V4(192, 0, 0, 0), 24 },     /* protocol assignments; Oracle's metadata 192.0.0.192 */
    { V4(192, 0, 2, 0), 24 },     /* documentation, with the next two */
    { V4(198, 51, 100, 0), 24 },  /* */
    { V4(203, 0, 113, 0), 24 },   /* */
    { V4(192, 88, 99, 0), 24 },   /* 6to4 relays */
    { V4(198, 18, 0, 0), 15 },    /* benchmarks */
    { V4(168, 63, 129, 16), 32 }, /* Azure's platform address, public by its number only */
    { V4(224, 0, 0, 0), 4 },      /* multicast */
    { V4(240, 0, 0, 0), 4 },      /* reserved, broadcast */
};

struct prefix6 {
    unsigned char address[8]; /* no prefix here is longer than 64 bits */
    int bits;
};

static const struct prefix6 refused6[] = {
    /* within 2000::/3 */
    { { 0x20, 0x01, 0x00, 0x00 }, 23 },             /* protocol assignments: Teredo, benchmarks, ORCHID */
    { { 0x20, 0x01, 0x0d, 0xb8 }, 32 },             /* documentation, with the next */
    { { 0x3f, 0xff, 0x00, 0x00 }, 20 },             /* */
    { { 0x26, 0x20, 0x00, 0x4f, 0x80, 0x00 }, 48 }, /* AS112's black hole */
};

static bool global4(uint32_t address)
{
    for (size_t i = 0; i < ARRAY_LEN(refused4); i++) {
        uint32_t mask = ~(uint32_t)0 << (32 - refused4[i].bits);
        if ((address & mask) == refused4[i].address)
            return false;
    }
    return true;
}

static bool in_prefix6(const unsigned char a[16], const struct prefix6 *p)
{
    int whole = p->bits / 8, rest = p->bits % 8;
    return memcmp(a, p->address, (size_t)whole) == 0 &&
           (rest == 0 || (a[whole] ^ p->address[whole]) >> (8 - rest) == 0);
}

static bool global6(const unsigned char a[16])
{
    if ((a[0] & 0xe0) != 0x20)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(refused6); i++) {
        if (in_prefix6(a, &refused6[i]))
            return false;
    }
    return true;
}

/* The v4 address that a v6 one stands for: where in its bytes, or -1. */
static int inner4_at(const unsigned char a[16])
{
    static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff }, compatible[12] = { 0 },
                               nat64[12] = { 0x00, 0x64, 0xff, 0x9b };
    if (memcmp(a, mapped, 12) == 0 || memcmp(a, compatible, 12) == 0 || memcmp(a, nat64, 12) == 0)
        return 12;
    return a[0] == 0x20 && a[1] == 0x02 ? 2 : -1;
}

static uint32_t read4(const unsigned char *p)
{
    return V4(p[0], p[1], p[2], p[3]);
}

/* One of this machine's addresses? Also true when that cannot be found out. */
static bool is_own(int family, const void *address, size_t len)
{
    struct ifaddrs *all = NULL;
    bool found = false;

    if (getifaddrs(&all) != 0)
        return true;
    for (const struct ifaddrs *i = all; i && !found; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != family)
            continue;
        if (family == AF_INET) {
            struct sockaddr_in in;
            memcpy(&in, i->ifa_addr, sizeof in);
            found = memcmp(&in.sin_addr, address, len) == 0;
        } else {
            struct sockaddr_in6 in6;
            memcpy(&in6, i->ifa_addr, sizeof in6);
            found = memcmp(&in6.sin6_addr, address, len) == 0;
        }
    }
    freeifaddrs(all);
    return found;
}

static bool allows4(const unsigned char bytes[4])
{
    return global4(read4(bytes)) && !is_own(AF_INET, bytes, 4);
}

static bool allows6(const unsigned char bytes[16])
{
    int at = inner4_at(bytes);
    if (at >= 0)
        return allows4(bytes + at);
    return global6(bytes) && !is_own(AF_INET6, bytes, 16);
}

bool netguard_allows(const struct sockaddr *address)
{
    if (address && address->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof in);
        return allows4((const unsigned char *)&in.sin_addr);
    }
    if (address && address->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, address, sizeof in6);
        return allows6(in6.sin6_addr.s6_addr);
    }
    return false;
}

bool netguard_allows_text(const char *ip)
{
    unsigned char bytes[16];

    if (ip && inet_pton(AF_INET, ip, bytes) == 1)
        return allows4(bytes);
    return ip && inet_pton(AF_INET6, ip, bytes) == 1 && allows6(bytes);
}
