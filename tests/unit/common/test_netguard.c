/* test_netguard.c - the table of addresses of security.md, S1 and S2: what may be dialled and what may not. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>
#include "common/base/text.h"
#include "common/io/netguard.h"

static const char *const refused[] = {
    /* v4 */
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.255",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    /* v6 */
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "::10.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "100:0:0:1::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "2002:c0a8:1::1",
    "2620:4f:8000::1",
    "3fff::1",
    "3fff:fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "4000::1",
    "e000::1",
    /* no addresses at all */
    "",
    "localhost",
    "2130706433",
    "0x7f.1",
    "127.1",
    "[::1]",
    "fe80::1%lo",
    "8.8.8.8 ",
    "1.1.1.1.",
};

static const char *const allowed[] = {
    "1.1.1.1",          "8.8.8.8",         "9.255.255.255",
    "11.0.0.1",         "100.63.255.255",  "100.128.0.1",
    "126.255.255.255",  "128.0.0.1",       "168.63.129.17",
    "169.253.255.255",  "172.15.255.255",  "172.32.0.1",
    "192.0.1.1",        "192.167.0.1",     "198.17.255.255",
    "198.20.0.1",       "223.255.255.255", "::ffff:8.8.8.8",
    "64:ff9b::808:808", "2002:808:808::1", "2001:4860:4860::8888",
    "2606:4700::1111",  "2a00:1450::1",    "3ffe::1",
};

static bool allows_dialled(const char *ip)
{
    struct sockaddr_in in = { .sin_family = AF_INET };
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
    if (inet_pton(AF_INET, ip, &in.sin_addr) == 1)
        return netguard_allows((const struct sockaddr *)&in);
    if (inet_pton(AF_INET6, ip, &in6.sin6_addr) == 1)
        return netguard_allows((const struct sockaddr *)&in6);
    return false;
}

Test(netguard, refuses_every_address_that_is_not_the_public_internet)
{
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        cr_expect(!netguard_allows_text(refused[i]), "%s", refused[i]);
        cr_expect(!allows_dialled(refused[i]), "%s dialled", refused[i]);
    }
    cr_expect(!netguard_allows_text(NULL));
    cr_expect(!netguard_allows(NULL));
}

Test(netguard, lets_public_addresses_through_up_to_the_edges)
{
    for (size_t i = 0; i < ARRAY_LEN(allowed); i++) {
        cr_expect(netguard_allows_text(allowed[i]), "%s", allowed[i]);
        cr_expect(allows_dialled(allowed[i]), "%s dialled", allowed[i]);
    }
}

Test(netguard, refuses_other_families)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    cr_expect(!netguard_allows((const struct sockaddr *)&un));
}

/* The machine's own addresses are mostly private here, so this also holds without that rule; where one is public it is
 * what refuses it. */
Test(netguard, refuses_the_machines_own_addresses)
{
    struct ifaddrs *all = NULL;
    cr_assert_eq(getifaddrs(&all), 0);
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        if (i->ifa_addr && (i->ifa_addr->sa_family == AF_INET || i->ifa_addr->sa_family == AF_INET6))
            cr_expect(!netguard_allows(i->ifa_addr));
    }
    freeifaddrs(all);
}
