/* test_text.c - tables for the small pure functions. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/clock.h"
#include "common/base/text.h"

Test(text, a_buffer_grows_to_its_ceiling_and_then_refuses_all)
{
    struct buf b = { .ceiling = 1000 };
    char x[300];

    memset(x, 'x', sizeof x);
    cr_expect(buf_add(&b, x, 300) && buf_add(&b, x, 300) && buf_add(&b, x, 300));
    cr_expect(buf_printf(&b, "%0100d", 7));
    cr_expect_eq(b.len, 1000);
    cr_expect_eq(b.data[1000], 0);
    cr_expect(!buf_str(&b, "y") && b.is_full);
    cr_expect(!buf_add(&b, "", 0), "refused once full");
    char *s = buf_take(&b);
    cr_expect_eq(strlen(s), 1000);
    cr_expect(b.data == NULL && b.len == 0 && !b.is_full);
    free(s);
    cr_expect(buf_add(&b, NULL, 0));
    cr_expect_str_eq(b.data, "");
    buf_done(&b);
}

Test(text, hex_goes_there_and_back)
{
    unsigned char in[3] = { 0, 0xab, 0xff }, back[3];
    char out[7];
    hex_encode(out, in, 3);
    cr_expect_str_eq(out, "00abff");
    cr_expect(hex_decode(back, 3, "00ABff") && memcmp(in, back, 3) == 0);
    cr_expect(!hex_decode(back, 3, "00abf") && !hex_decode(back, 3, "00abfg") && !hex_decode(back, 2, "00abff"));
    cr_expect(!hex_decode(back, 3, NULL));
}

Test(text, base64_is_strict)
{
    static const char *const bad[] = { "Zg",     "Zg=",   "Zg= =", "Zh==",  "Z===",
                                       "Zm9v\n", "Zm 9v", "Zm9-",  "Zm9v=", "Zm9\xaa" };
    char out[8];
    size_t n = 99;

    cr_expect_eq(base64_decode(out, sizeof out, &n, "Zm9vYg==", 8), ERR_OK);
    cr_expect(n == 4 && memcmp(out, "foob", 4) == 0);
    cr_expect_eq(base64_decode(out, sizeof out, &n, "", 0), ERR_OK);
    cr_expect_eq(n, 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_eq(base64_decode(out, sizeof out, &n, bad[i], strlen(bad[i])), ERR_ARGUMENT, "%s", bad[i]);
    cr_expect_eq(base64_decode(out, 2, &n, "Zm9v", 4), ERR_ARGUMENT, "no room");
    cr_expect(base64_decoded_max(8) >= 6);
}

Test(text, base64url_has_no_padding)
{
    char out[8];
    unsigned char back[4];
    size_t n;
    cr_expect_str_eq(base64url_encode(out, sizeof out, "\xff\xfe\xfd\xfc", 4), "__79_A");
    cr_expect_eq(base64url_decode(back, 4, &n, "__79_A", 6), ERR_OK);
    cr_expect(n == 4 && memcmp(back, "\xff\xfe\xfd\xfc", 4) == 0);
    cr_expect_eq(base64url_decode(back, 4, &n, "__79_A==", 8), ERR_ARGUMENT);
    cr_expect_null(base64url_encode(out, 6, "\xff\xfe\xfd\xfc", 4));
}

Test(text, url_parts_cannot_leave_their_place)
{
    struct arena *a = arena_new(1 << 16);
    char out[16];

    cr_expect_str_eq(url_segment(a, "a/b?c#d%e \xc3\xbc~-._"), "a%2Fb%3Fc%23d%25e%20%C3%BC~-._");
    cr_expect_str_eq(url_segment(a, ".."), "%2E%2E");
    cr_expect_str_eq(url_segment(a, "a..b"), "a..b");
    cr_expect_null(url_segment(a, NULL));
    cr_expect_str_eq(url_query_escape(a, "a&b=c+d"), "a%26b%3Dc%2Bd");
    cr_expect_eq(url_unescape(out, sizeof out, "a%2Fb+c%c3%bc", 13, true), ERR_OK);
    cr_expect_str_eq(out, "a/b c\xc3\xbc");
    cr_expect_eq(url_unescape(out, sizeof out, "a+b", 3, false), ERR_OK);
    cr_expect_str_eq(out, "a+b");
    static const char *const bad[] = { "%", "%2", "%zz", "%00", "a%2", "0123456789abcdef" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_eq(url_unescape(out, sizeof out, bad[i], strlen(bad[i]), true), ERR_ARGUMENT, "%s", bad[i]);
    arena_free(a);
}

enum { THREADS = 4, EACH = 5000 };
static char ids[THREADS][EACH][UUID_TEXT];

static void *make_ids(void *arg)
{
    char(*mine)[UUID_TEXT] = arg;
    for (int i = 0; i < EACH; i++)
        uuid_v7(mine[i]);
    return NULL;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

Test(text, uuid_v7_grows_and_never_repeats_its_stamp_over_threads)
{
    pthread_t t[THREADS];

    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, make_ids, ids[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        for (int k = 1; k < EACH; k++)
            cr_assert(strcmp(ids[i][k - 1], ids[i][k]) < 0);
    }
    qsort(ids, (size_t)THREADS * EACH, UUID_TEXT, by_text);
    for (int i = 1; i < THREADS * EACH; i++)
        cr_assert(memcmp(ids[0][0] + (ptrdiff_t)(i - 1) * UUID_TEXT, ids[0][0] + (ptrdiff_t)i * UUID_TEXT, 18) != 0);
    clock_test_shift_ms(0, -3600000);
    char earlier[UUID_TEXT];
    uuid_v7(earlier);
    cr_expect(strcmp(ids[THREADS - 1][EACH - 1], earlier) < 0, "a clock set back does not set ids back");
}

Test(text, uuids_carry_version_and_variant)
{
    char u[UUID_TEXT], lower[UUID_TEXT];
    uuid_v7(u);
    cr_expect(u[14] == '7' && strchr("89ab", u[19]) && uuid_valid(u));
    uuid_random(u);
    cr_expect(u[14] == '4' && strchr("89ab", u[19]) && uuid_valid(u));
    cr_expect(uuid_lower(lower, "0193ABCD-0000-7000-8000-00000000000F"));
    cr_expect_str_eq(lower, "0193abcd-0000-7000-8000-00000000000f");
    unsigned char bytes[UUID_BYTES];
    cr_expect(uuid_bytes(bytes, "0193ABCD-0102-7000-8000-00000000000F"));
    cr_expect(memcmp(bytes, "\x01\x93\xab\xcd\x01\x02\x70\0\x80\0\0\0\0\0\0\x0f", UUID_BYTES) == 0);
    cr_expect(!uuid_bytes(bytes, "x") && !uuid_bytes(bytes, NULL));
    static const char *const bad[] = { "",
                                       "x",
                                       "0193abcd-0000-7000-8000-00000000000",
                                       "0193abcd-0000-7000-8000-0000000000000",
                                       "0193abcd00000-7000-8000-00000000000f",
                                       "{193abcd-0000-7000-8000-00000000000f" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(!uuid_valid(bad[i]), "%s", bad[i]);
    cr_expect(!uuid_valid(NULL));
}

Test(text, times_are_written_and_read)
{
    static const struct {
        const char *text;
        int64_t ms;
    } ok[] = {
        { "1970-01-01T00:00:00.000Z", 0 },
        { "2026-11-20T10:11:12.123Z", INT64_C(1795169472123) },
        { "2000-02-29T23:59:59.999Z", INT64_C(951868799999) },
        { "1969-12-31T23:59:59.999Z", -1 },
        { "9999-12-31T23:59:59.999Z", INT64_C(253402300799999) },
    };
    static const char *const bad[] = { "",
                                       "2026-11-20",
                                       "2026-11-20T10:11:12",
                                       "2026-02-29T00:00:00Z",
                                       "2026-13-01T00:00:00Z",
                                       "2026-11-20T24:00:00Z",
                                       "2026-11-20T10:11:12.Z",
                                       "2026-11-20T10:11:12Zx",
                                       "2026-11-20T10:11:12+0100",
                                       " 2026-11-20T10:11:12Z" };
    char out[RFC3339_TEXT];
    int64_t ms;

    for (size_t i = 0; i < ARRAY_LEN(ok); i++) {
        rfc3339_ms(out, ok[i].ms);
        cr_expect_str_eq(out, ok[i].text);
        cr_expect(rfc3339_parse(ok[i].text, &ms) == ERR_OK && ms == ok[i].ms, "%s", ok[i].text);
    }
    cr_expect(rfc3339_parse("2026-11-20T11:11:12.1239+01:00", &ms) == ERR_OK && ms == INT64_C(1795169472123));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_eq(rfc3339_parse(bad[i], &ms), ERR_ARGUMENT, "%s", bad[i]);
}

Test(text, http_dates_come_in_three_shapes)
{
    static const char *const ok[] = { "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
                                      "Sun Nov  6 08:49:37 1994" };
    static const char *const bad[] = {
        "", "120", "Sun, 06 Nov 1994 08:49:37", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov", "Sun,", "Sun"
    };
    int64_t s;
    for (size_t i = 0; i < ARRAY_LEN(ok); i++)
        cr_expect(http_date_parse(ok[i], &s) == ERR_OK && s == 784111777, "%s", ok[i]);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_eq(http_date_parse(bad[i], &s), ERR_ARGUMENT, "%s", bad[i]);
}

Test(text, numbers_are_the_whole_text_or_nothing)
{
    static const char *const bad[] = { "", "-", " 1", "1 ", "+1", "0x1", "1e3", "9223372036854775808" };
    static const char *const bad_real[] = { "", "nan", "inf", "1e999", "0x1p3", "1.5x", " 1", "--1", "e" };
    int64_t n;
    double d;

    cr_expect(parse_i64("-9223372036854775808", INT64_MIN, INT64_MAX, &n) == ERR_OK && n == INT64_MIN);
    cr_expect(parse_i64("007", 0, 7, &n) == ERR_OK && n == 7);
    cr_expect_eq(parse_i64("8", 0, 7, &n), ERR_ARGUMENT);
    cr_expect_eq(parse_i64(NULL, 0, 7, &n), ERR_ARGUMENT);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect_eq(parse_i64(bad[i], INT64_MIN, INT64_MAX, &n), ERR_ARGUMENT, "%s", bad[i]);
    cr_expect(parse_double("-1.5e3", &d) == ERR_OK && d == -1500);
    for (size_t i = 0; i < ARRAY_LEN(bad_real); i++)
        cr_expect_eq(parse_double(bad_real[i], &d), ERR_ARGUMENT, "%s", bad_real[i]);
}

Test(text, utf8_is_what_the_standard_says)
{
    static const char *const bad[] = { "\x80",
                                       "\xc0\x80",
                                       "\xc1\xbf",
                                       "\xe0\x80\x80",
                                       "\xed\xa0\x80",
                                       "\xf0\x80\x80\x80",
                                       "\xf4\x90\x80\x80",
                                       "\xf5\x80\x80\x80",
                                       "\xe2\x82",
                                       "\xff",
                                       "a\xc3" };
    cr_expect(utf8_valid("a\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80", 10));
    cr_expect_eq(utf8_length("a\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80", 10), 4);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        cr_expect(!utf8_valid(bad[i], strlen(bad[i])), "%zu", i);
    static const size_t cut[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 10 };
    for (size_t i = 0; i < ARRAY_LEN(cut); i++)
        cr_expect_eq(utf8_cut("a\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80", 10, i), cut[i], "%zu", i);
    cr_expect(utf8_cut("\x80\x80\x80\x80\x80\x80\x80\x80", 8, 5) <= 5);
}

Test(text, provider_text_becomes_storable)
{
    static const struct {
        const char *in;
        size_t len, max;
        const char *out;
    } table[] = {
        { "plain", 5, 100, "plain" },
        { "a\0b", 3, 100,
          "a\xef\xbf\xbd"
          "b" },
        { "a\x01\xff", 3, 100, "a\xef\xbf\xbd\xef\xbf\xbd" },
        { "a\r\n\tb", 5, 100, "a   b" },
        { "{\"a\":\"\\u0000\"}", 14, 100, "{\"a\":\"\xef\xbf\xbd\"}" },
        { "\\\\u0000", 7, 100, "\\\\u0000" },
        { "\\\\\\u0000", 8, 100, "\\\\\xef\xbf\xbd" },
        { "ab\xc3\xbc", 4, 3, "ab" },
        { "abc", 3, 0, "" },
    };
    struct arena *a = arena_new(1 << 16);
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        cr_expect_str_eq(text_clean(a, table[i].in, table[i].len, table[i].max), table[i].out);
    cr_expect_null(text_clean(a, NULL, 0, 10));
    arena_free(a);
}

Test(text, credits_have_three_decimals_at_most)
{
    static const struct {
        const char *text;
        int64_t mc;
    } ok[] = { { "12.5", 12500 }, { "0", 0 }, { "0.001", 1 }, { "-3", -3000 }, { "1000", 1000000 } };
    static const char *const bad[] = { "", ".5", "1.", "1.2345", "1e3", " 1", "-", "99999999999999999999", "1.5.5" };
    char out[32];
    bool is_ok;

    for (size_t i = 0; i < ARRAY_LEN(ok); i++) {
        cr_expect_eq(credits_parse_mc(ok[i].text, &is_ok), ok[i].mc);
        cr_expect(is_ok);
        credits_format(out, sizeof out, ok[i].mc);
        cr_expect_str_eq(out, ok[i].text);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        (void)credits_parse_mc(bad[i], &is_ok);
        cr_expect(!is_ok, "%s", bad[i]);
    }
    credits_format(out, sizeof out, -300);
    cr_expect_str_eq(out, "-0.3");
}

Test(text, hashes_agree_with_their_standards)
{
    char out[SHA256_HEX], hex[65];
    unsigned char mac[32];

    sha256_hex(out, "abc", 3);
    cr_expect_str_eq(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_hex(out, NULL, 0);
    cr_expect_str_eq(out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    hmac_sha256(mac, "Jefe", 4, "what do ya want for nothing?", 28); /* RFC 4231, case 2 */
    hex_encode(hex, mac, 32);
    cr_expect_str_eq(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    cr_expect(bytes_equal("ab", "ab", 2) && !bytes_equal("ab", "ac", 2) && bytes_equal("a", "b", 0));
}
