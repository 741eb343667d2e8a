/* mt19937: the published value, and numbers below n as libstdc++ draws them. */
#include "check.h"
#include "../../src/base/mt19937.h"

TEST(mt19937_is_the_published_generator) {
    Mt19937 m;
    mt19937_seed(&m, 5489);
    for (int i = 1; i < 10000; i++) mt19937_next(&m);
    CHECK(mt19937_next(&m) == 4123659995u); // the C++ standard, [rand.predef]
}

TEST(mt19937_numbers_below_n) {
    static const uint32_t wanted[] = {9, 21, 15, 18, 0, 2, 5, 15}; // GCC 12, uniform_int_distribution
    Mt19937 m;
    mt19937_seed(&m, 1);
    for (uint32_t i = 0; i < 8; i++) CHECK(mt19937_below(&m, 23 - i) == wanted[i]);
    for (int i = 0; i < 1000; i++) CHECK(mt19937_below(&m, 1) == 0);
    uint32_t n_high = 0;
    for (int i = 0; i < 3000; i++) n_high += mt19937_below(&m, 3u << 30) >= 1u << 31;
    CHECK(n_high > 800 && n_high < 1200);
}
