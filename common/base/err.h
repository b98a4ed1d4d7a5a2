/* err.h - every error code of kiln, once: its word, its text, and what follows from it.
 *
 * One vocabulary serves the API's `code`, the attempts' rows, the metrics' labels and the functions' return values.
 * ERR_OK is 0. The first group are outcomes of a job (design.md, "Error codes"), the second refusals of the API, the
 * third never leave a process. */
#ifndef KILN_ERR_H
#define KILN_ERR_H
#include <stdbool.h>

/*    enum                       word                        http  retry  fallback  text */
#define ERR_CODES(X)                                                                                                   \
    X(ERR_OK, "ok", 200, 0, 0, "no error")                                                                             \
    /* outcomes of a job; http is what a caller sees when the same thing refuses a request */                          \
    X(ERR_INVALID_REQUEST, "invalid_request", 422, 0, 0, "the request is not valid")                                   \
    X(ERR_AUTH, "auth", 502, 0, 1, "the provider refused the operator's key")                                          \
    X(ERR_INSUFFICIENT_FUNDS, "insufficient_funds", 502, 0, 1, "the operator's account at the provider is empty")      \
    X(ERR_CONTENT_FILTERED, "content_filtered", 422, 0, 0, "the provider's content filter refused it")                 \
    X(ERR_RATE_LIMITED, "rate_limited", 429, 1, 1, "the provider asks to wait")                                        \
    X(ERR_PROVIDER_UNAVAILABLE, "provider_unavailable", 503, 1, 1, "the provider is not available")                    \
    X(ERR_PROVIDER_ERROR, "provider_error", 502, 1, 1, "the provider failed")                                          \
    X(ERR_REGION_BLOCKED, "region_blocked", 451, 0, 1, "the provider does not serve this region")                      \
    X(ERR_TIMEOUT, "timeout", 504, 1, 1, "no result within the deadline")                                              \
    X(ERR_BAD_RESPONSE, "bad_response", 502, 0, 0, "the provider's answer could not be read")                          \
    X(ERR_BAD_RESULT, "bad_result", 502, 0, 0, "the provider's result is blank, or of the wrong kind or size")         \
    X(ERR_NOT_FOUND, "not_found", 404, 0, 0, "not found")                                                              \
    X(ERR_INPUT_UNREACHABLE, "input_unreachable", 422, 0, 0, "an input could not be fetched")                          \
    X(ERR_INPUT_INVALID, "input_invalid", 422, 0, 0, "an input is not what the operation takes")                       \
    X(ERR_STORAGE_ERROR, "storage_error", 503, 1, 0, "the result could not be stored")                                 \
    X(ERR_EXPIRED, "expired", 410, 0, 0, "the job's deadline passed before it could start")                            \
    X(ERR_CANCELED, "canceled", 409, 0, 0, "the job was canceled")                                                     \
    X(ERR_WORKER_LOST, "worker_lost", 500, 0, 0, "three workers died while the job's result was collected")            \
    X(ERR_OUTCOME_UNKNOWN, "outcome_unknown", 500, 0, 0, "the provider was asked; whether it worked is not known")     \
    /* refusals of the API */                                                                                          \
    X(ERR_INVALID_JSON, "invalid_json", 400, 0, 0, "the body is not JSON")                                             \
    X(ERR_UNAUTHORIZED, "unauthorized", 401, 0, 0, "a valid API key is needed")                                        \
    X(ERR_INSUFFICIENT_CREDITS, "insufficient_credits", 402, 0, 0, "not enough credits")                               \
    X(ERR_FORBIDDEN, "forbidden", 403, 0, 0, "not allowed")                                                            \
    X(ERR_METHOD_NOT_ALLOWED, "method_not_allowed", 405, 0, 0, "the method is not allowed here")                       \
    X(ERR_CONFLICT, "conflict", 409, 0, 0, "conflict")                                                                 \
    X(ERR_TOO_LARGE, "too_large", 413, 0, 0, "the body is too large")                                                  \
    X(ERR_UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", 415, 0, 0, "the media type is not supported")              \
    X(ERR_UNKNOWN_OPERATION, "unknown_operation", 422, 0, 0, "the operation is not known")                             \
    X(ERR_PROVIDER_NOT_CONFIGURED, "provider_not_configured", 422, 0, 0, "the operation's provider has no key here")   \
    X(ERR_IDEMPOTENCY_MISMATCH, "idempotency_mismatch", 422, 0, 0, "the key was used with another body")               \
    X(ERR_QUEUE_FULL, "queue_full", 429, 1, 0, "the queue is full")                                                    \
    X(ERR_HEADERS_TOO_LARGE, "headers_too_large", 431, 0, 0, "the headers are too large")                              \
    X(ERR_UNAVAILABLE, "unavailable", 503, 1, 0, "a service behind kiln is not available")                             \
    /* inside one process */                                                                                           \
    X(ERR_NOMEM, "no_memory", 503, 1, 0, "out of memory")                                                              \
    X(ERR_ARGUMENT, "argument", 500, 0, 0, "a value does not fit")                                                     \
    X(ERR_IO, "io", 503, 1, 0, "input or output failed")                                                               \
    X(ERR_LOST, "connection_lost", 503, 1, 0, "the connection was lost; whether it took effect is not known")          \
    X(ERR_REFUSED, "refused", 500, 0, 0, "the database refused a row")                                                 \
    X(ERR_CLOSED, "closed", 503, 0, 0, "closed")

enum err {
#define X(name, word, http, retry, fallback, text) name,
    ERR_CODES(X)
#undef X
        ERR_COUNT
};

const char *err_word(enum err e);         /* "rate_limited"; never NULL */
const char *err_text(enum err e);         /* one plain sentence part; never NULL */
int err_http(enum err e);                 /* the HTTP status it becomes */
bool err_retry(enum err e);               /* the same job, submitted anew, could succeed (`retryable`) */
bool err_fallback(enum err e);            /* another provider could cure it (routes) */
enum err err_from_word(const char *word); /* ERR_COUNT: not one of ours. NULL: ERR_OK */
#endif
