/* test_sandbox_faults.c - faults as they are asked for, counters, and many at once. */
#include "test_box.h"

/* ---- faults ---- */

static struct answer ask(const char *tag, const char *fault)
{
    char body[400];
    (void)snprintf(body, sizeof body, "{\"model\":\"gpt-image-1\",\"prompt\":\"x [[job:%s]] [[fault:%s]]\"}", tag,
                   fault);
    return answer_of_post(IMAGES, "sk", body);
}

Test(faults, rules_end_and_what_was_counted_stays)
{
    box_start(FAST);
    struct answer a = answer_of_post("/_sandbox/faults", NULL, "{\"match\":{},\"fault\":{\"status\":503}}");
    done(&a);
    a = ask("e", "chunked");
    cr_expect_eq(a.status, 503);
    done(&a);
    method = "DELETE";
    a = get("/_sandbox/faults", NULL);
    cr_expect_eq(json_array_size(json_object_get(a.json, "faults")), 0);
    done(&a);
    method = NULL;
    a = ask("e", "chunked");
    cr_expect_eq(a.status, 200);
    done(&a);
    cr_expect_eq(counter("e", "requests"), 2);
    box_stop();
}

Test(faults, a_status_holds_so_many_times_for_each_tag)
{
    static const char *const tags[] = { "a", "b" };
    box_start(FAST);
    for (size_t t = 0; t < 2; t++) {
        for (int i = 0; i < 3; i++) {
            struct answer a = ask(tags[t], "status=503,retry_after=2,times=2");
            cr_expect_eq(a.status, i < 2 ? 503 : 200, "tag %s, request %d", tags[t], i);
            cr_expect_str_eq(a.retry, i < 2 ? "2" : "");
            done(&a);
        }
        cr_expect_eq(counter(tags[t], "requests"), 3);
        cr_expect_eq(counter(tags[t], "refused"), 2);
        cr_expect_eq(counter(tags[t], "paid"), 1);
    }
    box_stop();
}

Test(faults, connections_break_before_after_and_in_the_middle)
{
    static const struct {
        const char *tag, *fault;
        CURLcode code;
        long paid;
    } rows[] = {
        { "before", "drop_before", CURLE_GOT_NOTHING, 0 }, { "after", "drop_after", CURLE_GOT_NOTHING, 1 },
        { "mid", "drop_mid=100", CURLE_PARTIAL_FILE, 1 },  { "unpaid", "drop_after,unpaid", CURLE_GOT_NOTHING, 0 },
        { "none", "drop_at=0", CURLE_GOT_NOTHING, 1 },     { "last", "drop_at=-1", CURLE_PARTIAL_FILE, 1 },
    };
    box_start(FAST);
    for (size_t i = 0; i < LEN(rows); i++) {
        curl_easy_cleanup(box.curl); /* a fresh connection: libcurl repeats a POST when a reused one dies */
        box.curl = curl_easy_init();
        struct answer a = ask(rows[i].tag, rows[i].fault);
        cr_expect_eq(a.code, rows[i].code, "%s: %s", rows[i].fault, curl_easy_strerror(a.code));
        cr_expect(strcmp(rows[i].tag, "mid") != 0 || a.len == 100, "%zu bytes", a.len);
        done(&a);
        cr_expect_eq(counter(rows[i].tag, "paid"), rows[i].paid, "%s", rows[i].fault);
        cr_expect_eq(counter(rows[i].tag, "cut"), 1, "%s", rows[i].fault);
        cr_expect_eq(counter(rows[i].tag, "canceled"), 0, "%s", rows[i].fault);
    }
    box_stop();
}

/* What rule 8 of the protocol is about: libcurl sends a POST again, without a word, when a reused connection dies. */
Test(faults, a_reused_connection_that_closes_is_seen_paid_for_twice)
{
    box_start(FAST);
    struct answer a = ask("r1", "reuse_close,times=1");
    cr_expect_eq(a.status, 200, "reset by configure: this is not the first request on the connection");
    done(&a);
    curl_easy_cleanup(box.curl);
    box.curl = curl_easy_init();
    a = ask("r2", "reuse_close,times=1");
    cr_expect_eq(a.status, 200, "the first request on a connection is served");
    done(&a);
    cr_expect_eq(counter("r2", "cut"), 0);
    a = ask("r2", "reuse_close,times=1"); /* the counters came over the same connection: it is a reused one */
    cr_expect_eq(a.status, 200, "libcurl repeats it on a new connection");
    done(&a);
    cr_expect_eq(counter("r2", "cut"), 1);
    cr_expect_eq(counter("r2", "paid"), 3);
    box_stop();
}

Test(faults, bodies_are_spoiled_as_asked)
{
    box_start(FAST);
    struct answer a = ask("t", "truncate=30");
    cr_expect(a.code == CURLE_OK && a.status == 200 && a.len == 30 && a.json == NULL);
    done(&a);
    a = ask("t", "bad_json");
    cr_expect(a.status == 200 && a.len > 0 && a.json == NULL);
    done(&a);
    a = ask("t", "html");
    cr_expect(a.status == 502 && strncmp(a.type, "text/html", 9) == 0 && a.body[0] == '<');
    done(&a);
    a = ask("t", "html,status=200");
    cr_expect(a.status == 200 && a.body[0] == '<');
    done(&a);
    a = ask("t", "empty_body");
    cr_expect(a.status == 200 && a.len == 0);
    done(&a);
    a = ask("t", "slow_body=2000,slow_ms=1");
    cr_expect(a.status == 200 && a.json != NULL, "a slow body arrives whole");
    done(&a);
    a = ask("t", "chunked");
    cr_expect(a.status == 200 && a.json != NULL);
    done(&a);
    a = ask("t", "blank");
    cr_expect_eq(look_base64(str(json_array_get(json_object_get(a.json, "data"), 0), "b64_json", NULL)).colors, 1);
    done(&a);
    a = ask("t", "wrong_format");
    cr_expect_eq(look_base64(str(json_array_get(json_object_get(a.json, "data"), 0), "b64_json", NULL)).kind, 'j');
    done(&a);
    a = ask("t", "wrong_size");
    cr_expect_neq(look_base64(str(json_array_get(json_object_get(a.json, "data"), 0), "b64_json", NULL)).width, 96);
    done(&a);
    box_stop();
}

Test(faults, a_client_that_stops_waiting_is_counted_as_canceled)
{
    static const char *const faults[] = { "hang", "slow_body=10,slow_ms=20" };
    box_start(FAST);
    for (size_t i = 0; i < LEN(faults); i++) {
        const char *tag = i == 0 ? "g0" : "g1";
        struct waiter w;
        waiter_start(&w, tag, faults[i]);
        cr_expect_eq(counter(tag, "canceled"), 0);
        waiter_leave(&w);
        time_t limit = time(NULL) + 10;
        while (counter(tag, "canceled") == 0 && time(NULL) < limit)
            ;
        cr_expect_eq(counter(tag, "canceled"), 1, "%s", faults[i]);
        cr_expect_eq(counter(tag, "paid"), 1);
    }
    box_stop();
}

Test(faults, rules_from_outside_match_by_provider_path_and_prompt)
{
    box_start(FAST);
    struct answer a =
        answer_of_post("/_sandbox/faults", NULL,
                       "{\"match\":{\"provider\":\"openai\",\"prompt_contains\":\"apple\"},\"fault\":{\"status\":"
                       "429,\"retry_after\":7},\"times\":1}");
    cr_assert_eq(a.status, 200, "%s", a.body);
    done(&a);
    static const struct {
        const char *prompt;
        long status;
    } rows[] = { { "pear", 200 }, { "an apple", 429 }, { "an apple", 200 } };
    for (size_t i = 0; i < LEN(rows); i++) {
        char body[120];
        (void)snprintf(body, sizeof body, "{\"model\":\"gpt-image-1\",\"prompt\":\"%s\"}", rows[i].prompt);
        a = answer_of_post(IMAGES, "sk", body);
        cr_expect_eq(a.status, rows[i].status, "%zu: %s", i, rows[i].prompt);
        done(&a);
    }
    a = answer_of_post("/_sandbox/faults", NULL,
                       "{\"match\":{\"path_contains\":\"/generate/core\"},\"fault\":{\"drop_before\":true}}");
    done(&a);
    curl_easy_cleanup(box.curl);
    box.curl = curl_easy_init();
    static const char *const fields[] = { "prompt", "x", NULL };
    a = perform(CORE, "sk", NULL, form_of(fields, NULL, 0), NULL);
    cr_expect(a.code == CURLE_GOT_NOTHING || a.code == CURLE_RECV_ERROR || a.code == CURLE_SEND_ERROR, "%d",
              (int)a.code);
    done(&a);
    a = answer_of_post("/_sandbox/reset", NULL, "{}");
    done(&a);
    a = answer_of_post("/_sandbox/faults", NULL,
                       "{\"match\":{\"path_contains\":\"/generate/core\"},\"fault\":{\"drop_line\":true},\"times\":1}");
    done(&a);
    curl_easy_cleanup(box.curl);
    box.curl = curl_easy_init();
    a = perform(CORE, "sk", NULL, form_of(fields, NULL, 0), NULL);
    cr_expect(a.code == CURLE_GOT_NOTHING || a.code == CURLE_RECV_ERROR || a.code == CURLE_SEND_ERROR, "%d",
              (int)a.code);
    done(&a);
    a = answer_of_post("/_sandbox/faults", NULL, "{\"match\":{},\"fault\":{\"nonsense\":1}}");
    cr_expect_eq(a.status, 400);
    done(&a);
    a = answer_of_post("/_sandbox/reset", NULL, "{}");
    done(&a);
    a = get("/_sandbox/faults", NULL);
    cr_expect_eq(json_array_size(json_object_get(a.json, "faults")), 0);
    done(&a);
    box_stop();
}

/* What each word does where the tests above did not go. */
Test(faults, statuses_speak_each_providers_language)
{
    static const char *const fields[] = { "prompt", "x [[fault:status=429,retry_after_date=5]]", NULL };
    box_start(FAST);
    struct answer a = perform(CORE, "sk", NULL, form_of(fields, NULL, 0), NULL);
    cr_expect(a.status == 429 && strcmp(str(a.json, "name", NULL), "rate_limit_exceeded") == 0, "%s", a.body);
    cr_expect(strstr(a.retry, "GMT") != NULL, "a date: %s", a.retry);
    done(&a);
    a = answer_of_post(LEO, "key", "{\"prompt\":\"x [[fault:status=500]]\"}");
    cr_expect(a.status == 500 && strcmp(str(a.json, "error", NULL), "Service Error") == 0, "%s", a.body);
    done(&a);
    a = ask("s", "status=429,code=insufficient_quota");
    cr_expect(a.status == 429 && strcmp(str(a.json, "error", "type"), "insufficient_quota") == 0, "%s", a.body);
    done(&a);
    a = ask("s", "status=503,retry_after_ms=1500,should_retry=0");
    cr_expect(strcmp(a.retry_ms, "1500") == 0 && strcmp(a.should_retry, "false") == 0);
    done(&a);
    a = ask("s", "status=502,paid");
    done(&a);
    cr_expect_eq(counter("s", "paid"), 1, "paid says so");
    static const char *const moderated[] = { "prompt", "x [[fault:moderated]]", NULL };
    a = perform(CORE, "sk", NULL, form_of(moderated, NULL, 0), NULL);
    cr_expect(a.status == 403 && strcmp(str(a.json, "name", NULL), "content_moderation") == 0, "%s", a.body);
    done(&a);
    a = answer_of_post(LEO, "key", "{\"prompt\":\"x [[fault:moderated]]\"}");
    cr_expect(a.status == 403 && strncmp(str(a.json, "error", NULL), "content moderation filter", 25) == 0, "%s",
              a.body);
    done(&a);
    a = ask("s", "moderated");
    cr_expect(a.status == 400 && strcmp(str(a.json, "error", "code"), "moderation_blocked") == 0, "%s", a.body);
    done(&a);
    box_stop();
}

Test(faults, polls_and_downloads_break_as_submits_do)
{
    char path[160], url[300];
    box_start(FAST);
    struct answer a =
        generate("{\"prompt\":\"x [[job:d]] [[fault:download_status=503,times=1]] [[fault:cut_image]] [[fault:nsfw]] "
                 "[[fault:bad_json,at=poll,times=1]] [[fault:delay_ms=300,at=poll,times=1]]\",\"num_images\":1,"
                 "\"width\":64,\"height\":64}",
                 path);
    done(&a);
    struct timespec from, to;
    (void)clock_gettime(CLOCK_MONOTONIC, &from);
    a = get(path, "key");
    (void)clock_gettime(CLOCK_MONOTONIC, &to);
    cr_expect(a.status == 200 && a.json == NULL, "%s", a.body);
    cr_expect_geq((to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000, 290);
    done(&a);
    a = get(path, "key");
    json_t *image =
        json_array_get(json_object_get(json_object_get(a.json, "generations_by_pk"), "generated_images"), 0);
    cr_expect(json_is_true(json_object_get(image, "nsfw")));
    (void)snprintf(url, sizeof url, "%s", str(image, "url", NULL));
    done(&a);
    a = get(url, NULL);
    cr_expect_eq(a.status, 503);
    done(&a);
    a = get(url, NULL);
    cr_expect(a.status == 200 && a.len > 4 && (unsigned char)a.body[a.len - 1] != 0xD9, "half a JPEG has no end");
    done(&a);
    cr_expect_eq(counter("d", "downloads"), 2);
    a = generate("{\"prompt\":\"x [[job:e]] [[fault:drop_after,at=poll,times=1]]\"}", path);
    done(&a);
    curl_easy_cleanup(box.curl); /* a fresh connection, or libcurl asks again by itself */
    box.curl = curl_easy_init();
    a = get(path, "key");
    cr_expect_eq(a.code, CURLE_GOT_NOTHING);
    done(&a);
    a = get(path, "key");
    cr_expect_eq(a.status, 200, "asking again is free");
    done(&a);
    cr_expect_eq(counter("e", "paid"), 1);
    a = generate("{\"prompt\":\"x [[fault:null_job]]\"}", path);
    cr_expect(json_is_null(json_object_get(a.json, "sdGenerationJob")));
    done(&a);
    a = generate("{\"prompt\":\"x [[fault:missing_id]]\"}", path);
    cr_expect(a.status == 200 && path[strlen(path) - 1] == '/');
    done(&a);
    box_stop();
}

Test(counters, requests_are_remembered_with_their_idempotency_key)
{
    box_start(FAST);
    struct answer a =
        perform(IMAGES, "sk", "Idempotency-Key: abc-1", NULL, "{\"model\":\"gpt-image-1\",\"prompt\":\"x [[job:i]]\"}");
    done(&a);
    a = get("/_sandbox/requests?tag=i", NULL);
    const json_t *one = json_array_get(json_object_get(a.json, "requests"), 0);
    cr_expect_str_eq(str(one, "idempotency_key", NULL), "abc-1");
    cr_expect_str_eq(str(one, "path", NULL), IMAGES);
    cr_expect_eq(json_integer_value(json_object_get(one, "status")), 200);
    cr_expect(strstr(a.body, "sk") == NULL || strstr(a.body, "\"sk\"") == NULL, "the key itself must not show");
    done(&a);
    a = get("/_sandbox/counters", NULL);
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(a.json, "totals"), "paid")), 1);
    cr_expect_eq(json_object_size(json_object_get(a.json, "keys")), 1);
    done(&a);
    box_stop();
}

Test(capacity, hundreds_wait_at_once_and_all_are_answered)
{
    enum { COUNT = 400 };
    CURL *c[COUNT];
    char url[128];
    int running = COUNT, left = 0, good = 0;
    struct answer a[COUNT];
    box_start(FAST);
    configure("{\"delay_ms\":{\"openai\":800},\"image_size_cap\":16}");
    CURLM *m = curl_multi_init();
    struct curl_slist *h = curl_slist_append(NULL, "Authorization: Bearer sk-many");
    h = curl_slist_append(h, "Content-Type: application/json");
    (void)snprintf(url, sizeof url, "%s%s", box.base, IMAGES);
    for (int i = 0; i < COUNT; i++) {
        a[i] = (struct answer){ 0 };
        c[i] = curl_easy_init();
        curl_easy_setopt(c[i], CURLOPT_URL, url);
        curl_easy_setopt(c[i], CURLOPT_HTTPHEADER, h);
        curl_easy_setopt(c[i], CURLOPT_POSTFIELDS, "{\"model\":\"gpt-image-1\",\"prompt\":\"[[job:m]]\"}");
        curl_easy_setopt(c[i], CURLOPT_WRITEFUNCTION, on_body);
        curl_easy_setopt(c[i], CURLOPT_WRITEDATA, &a[i]);
        curl_multi_add_handle(m, c[i]);
    }
    while (running > 0) {
        curl_multi_perform(m, &running);
        while (curl_multi_info_read(m, &left) != NULL)
            ;
        curl_multi_poll(m, NULL, 0, 50, NULL);
    }
    for (int i = 0; i < COUNT; i++) {
        long status = 0;
        curl_easy_getinfo(c[i], CURLINFO_RESPONSE_CODE, &status);
        good += status == 200;
        curl_multi_remove_handle(m, c[i]);
        curl_easy_cleanup(c[i]);
        free(a[i].body);
    }
    cr_expect_eq(good, COUNT);
    cr_expect_eq(counter("m", "paid"), COUNT);
    curl_multi_cleanup(m);
    curl_slist_free_all(h);
    box_stop();
}
