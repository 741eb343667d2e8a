/* divergence: against values computed by hand. */
#include "check.h"
#include "../../src/run/divergence.h"

#include <math.h>

TEST(divergence_of_distributions) {
    const float half[] = {0, 0, -INFINITY}, quarter[] = {logf(0.25f), logf(0.75f), -INFINITY};
    const float all[] = {-7, -7, -7}, far[] = {800, 0, -800}, damaged[] = {0, NAN, 0};
    CHECK(fabs(log_sum_exp(half, 3) - log(2)) < 1e-15);
    CHECK(fabs(log_sum_exp(far, 3) - 800) < 1e-12, "no overflow");
    CHECK(kl_divergence(half, half, 3) == 0 && kl_divergence(all, all, 3) == 0);
    CHECK(fabs(kl_divergence(half, quarter, 3) - (0.5 * log(2) + 0.5 * log(2. / 3))) < 1e-7);
    CHECK(fabs(kl_divergence(quarter, half, 3) - (0.25 * log(0.5) + 0.75 * log(1.5))) < 1e-7);
    CHECK(fabs(kl_divergence(half, all, 3) - log(1.5)) < 1e-15);
    CHECK(isinf(kl_divergence(all, half, 3)), "what is possible has been ruled out");
    CHECK(!(kl_divergence(half, damaged, 3) <= 1e9), "a NaN is not near");
}

TEST(divergence_top_token) {
    const float ties[] = {-1, 3, 2, 3}, floor[] = {-INFINITY, -INFINITY, -5};
    CHECK(top_token(ties, 4) == 1 && top_token(floor, 3) == 2 && top_token(ties, 1) == 0);
}
