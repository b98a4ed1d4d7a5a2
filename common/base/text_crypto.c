/* text_crypto.c - hashes by OpenSSL (four times faster than libsodium's), random bytes and comparison by libsodium.
 *
 * The algorithms are fetched once: the one-shot functions look them up at every call. */
#include "common/base/text.h"
#include <assert.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <pthread.h>
#include <sodium.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256; /* never freed: lives as long as the process */
static EVP_MAC *hmac;

static void crypto_start(void)
{
    int sodium = sodium_init();
    assert(sodium >= 0); /* without random bytes there is no going on */
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    assert(sha256 && hmac);
}

void sha256_hex(char out[SHA256_HEX], const void *data, size_t len)
{
    unsigned char digest[32];
    int ok;

    (void)pthread_once(&once, crypto_start);
    ok = EVP_Digest(len ? data : "", len, digest, NULL, sha256, NULL);
    assert(ok == 1); /* fails only when out of memory, and no caller could go on without the hash */
    hex_encode(out, digest, sizeof digest);
}

void hmac_sha256(unsigned char out[32], const void *key, size_t key_len, const void *data, size_t len)
{
    char name[] = "SHA256";
    OSSL_PARAM params[] = { OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name, 0),
                            OSSL_PARAM_construct_end() };
    EVP_MAC_CTX *mac;
    size_t out_len = 0;
    int ok;

    (void)pthread_once(&once, crypto_start);
    mac = EVP_MAC_CTX_new(hmac);
    ok = mac && EVP_MAC_init(mac, key_len ? key : (const void *)"", key_len, params) == 1 &&
         EVP_MAC_update(mac, len ? data : (const void *)"", len) == 1 && EVP_MAC_final(mac, out, &out_len, 32) == 1;
    EVP_MAC_CTX_free(mac);
    assert(ok && out_len == 32); /* as above */
}

void random_bytes(void *out, size_t len)
{
    (void)pthread_once(&once, crypto_start);
    randombytes_buf(out, len);
}

bool bytes_equal(const void *a, const void *b, size_t len)
{
    return sodium_memcmp(a, b, len) == 0;
}
