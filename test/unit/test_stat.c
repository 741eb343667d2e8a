/* stat: against values computed by hand. */
#include "check.h"
#include "../../src/base/stat.h"

#include <math.h>

static bool near(double a, double b) {
    return fabs(a - b) <= 1e-12 * fabs(b);
}

TEST(stat_mean_deviation_quantile) {
    static const double x[] = {4, 1, 3, 2}, one[] = {7};
    CHECK(stat_mean(x, 4) == 2.5 && stat_mean(one, 1) == 7 && stat_mean(x, 0) == 0);
    CHECK(near(stat_deviation(x, 4), sqrt(5.0 / 3))); // over n - 1
    CHECK(stat_deviation(one, 1) == 0 && stat_deviation(x, 0) == 0);
    CHECK(stat_quantile(x, 4, 0) == 1 && stat_quantile(x, 4, 1) == 4 && stat_quantile(x, 4, 0.5) == 2.5);
    CHECK(near(stat_quantile(x, 4, 0.9), 3.7) && stat_quantile(one, 1, 0.99) == 7);
    CHECK(stat_quantile(x, 0, 0.5) == 0 && x[0] == 4, "the values stay as they were");
    CHECK(near(stat_error(x, 4), sqrt(5.0 / 12)) && stat_error(one, 1) == 0 && stat_error(x, 0) == 0);
    static const double near_each_other[] = {1e9 + 1, 1e9 + 2, 1e9 + 3}; // squares would lose these
    CHECK(stat_deviation(near_each_other, 3) == 1);
}

/* In 0, 1, .., 100 ranks are 1 apart: the error of the median is 100 sqrt(0.25 / 101), that of the maximum
 * 0. */
TEST(stat_error_of_a_quantile) {
    double x[101];
    for (int i = 0; i <= 100; i++) x[i] = (i * 37) % 101;
    CHECK(near(stat_quantile_error(x, 101, 0.5), 100 * sqrt(0.25 / 101)));
    double below = 99.5 - 100 * sqrt(0.995 * 0.005 / 101); // and above is beyond the last
    CHECK(near(stat_quantile_error(x, 101, 0.995), (100 - below) / 2));
    CHECK(stat_quantile_error(x, 101, 1) == 0 && stat_quantile_error(x, 0, 0.5) == 0);
}
