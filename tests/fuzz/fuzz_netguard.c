/* fuzz_netguard.c - any text and any bytes as the address of a host that a customer or a provider named: what is let
 * through is a global unicast address, also by rules written a second time here. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include "common/io/netguard.h"
#include "tests/fuzz/fuzz.h"

static void check4(const unsigned char b[4])
{
    FUZZ_CLAIM(b[0] != 0 && b[0] != 10 && b[0] != 127 && b[0] < 224);
    FUZZ_CLAIM(!(b[0] == 192 && b[1] == 168) && !(b[0] == 172 && b[1] >= 16 && b[1] <= 31));
    FUZZ_CLAIM(!(b[0] == 169 && b[1] == 254) && !(b[0] == 100 && b[1] >= 64 && b[1] <= 127));
}

static void check6(const unsigned char b[16])
{
    static const unsigned char zero[10], wrapped[2] = { 0xff, 0xff };

    FUZZ_CLAIM(b[0] != 0xfc && b[0] != 0xfd && b[0] != 0xfe && b[0] != 0xff);
    if (memcmp(b, zero, 10) == 0)
        FUZZ_CLAIM(memcmp(b + 10, wrapped, 2) == 0 || memcmp(b + 10, zero, 2) == 0);
    if (memcmp(b, zero, 10) == 0)
        check4(b + 12);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sockaddr_storage any = { 0 };
    struct sockaddr_in in = { .sin_family = AF_INET };
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
    unsigned char bytes[16] = { 0 }, mapped[16] = { [10] = 0xff, [11] = 0xff };
    char *text = fuzz_text(data, size);

    memcpy(&any, data ? data : (const uint8_t *)"", size < sizeof any ? size : sizeof any);
    (void)netguard_allows((const struct sockaddr *)&any);
    if (netguard_allows_text(text)) {
        bool is4 = inet_pton(AF_INET, text, bytes) == 1;

        FUZZ_CLAIM(is4 || inet_pton(AF_INET6, text, bytes) == 1);
        is4 ? check4(bytes) : check6(bytes);
    }
    memcpy(bytes, data ? data : (const uint8_t *)"", size < 16 ? size : 16);
    memcpy(&in.sin_addr, bytes, 4);
    memcpy(&in6.sin6_addr, bytes, 16);
    if (netguard_allows((struct sockaddr *)&in6))
        check6(bytes);
    if (netguard_allows((struct sockaddr *)&in))
        check4(bytes);
    memcpy(mapped + 12, bytes, 4); /* the same address in a v6 coat is judged the same */
    memcpy(&in6.sin6_addr, mapped, 16);
    FUZZ_CLAIM(netguard_allows((struct sockaddr *)&in6) == netguard_allows((struct sockaddr *)&in));
    free(text);
    return 0;
}
