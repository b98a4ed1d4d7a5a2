/* test_clock.c - the clocks move, and tests can move them. */
#include <criterion/criterion.h>
#include "common/base/clock.h"

Test(clock, a_shift_moves_both_clocks_and_can_be_taken_back)
{
    int64_t mono = clock_mono_ms(), wall = clock_wall_ms();
    clock_test_shift_ms(5000000, -7000000);
    cr_expect(clock_mono_ms() - mono >= 5000000 && clock_mono_ms() - mono < 5060000);
    cr_expect(clock_wall_ms() - wall >= -7000000 && clock_wall_ms() - wall < -6940000);
    clock_test_shift_ms(0, 0);
    cr_expect(clock_mono_ms() - mono < 60000);
}

Test(clock, the_wall_is_in_this_century)
{
    cr_expect(clock_wall_ms() > INT64_C(1700000000000));
    cr_expect(clock_mono_us() / 1000 <= clock_mono_ms());
}
