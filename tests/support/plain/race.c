/* race.c - a test that claims nothing false and has a race: it must fail under TSan, or the whole tree proves nothing.
 */
#include <criterion/criterion.h>
#include <pthread.h>

static int shared;

static void *write_shared(void *ctx)
{
    shared++;
    return ctx;
}

Test(race, that_tsan_has_to_see)
{
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, write_shared, NULL), 0);
    shared++;
    cr_assert_eq(pthread_join(thread, NULL), 0);
}
