/* The unit test program: runs every registered test whose name contains one of the arguments (all without
 * arguments), prints a line for each that fails or is skipped, and ends with the counts.
 *
 * The program is also built for aarch64 and run under qemu-user, where there is no Jansson and no PCRE2 to
 * link: files of tests that include <jansson.h>, golden.h or a header of src/text, src/run or src/cli stay
 * out of that build. */
#include "check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct Test {
    const char *file, *name;
    void (*run)(void);
} tests[1000];
static int n_tests;
static int failures; // of the running test
static const char *skipped;

void test_register(const char *file, const char *name, void (*run)(void)) {
    if (n_tests == 1000) abort();
    tests[n_tests++] = (struct Test){file, name, run};
}

void test_fail(const char *file, int line, const char *format, ...) {
    if (++failures > 10) return; // the first ten say enough
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

void test_skip(const char *reason) {
    skipped = reason;
}

static bool wanted(const struct Test *t, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strstr(t->name, argv[i])) return true;
    return argc < 2;
}

int main(int argc, char **argv) {
    int n_passed = 0, n_failed = 0, n_skipped = 0;
    for (int i = 0; i < n_tests; i++) {
        if (!wanted(&tests[i], argc, argv)) continue;
        failures = 0, skipped = NULL;
        tests[i].run();
        if (failures)
            n_failed++, printf("not ok %s (%s)\n", tests[i].name, tests[i].file);
        else if (skipped)
            n_skipped++, printf("skipped %s: %s\n", tests[i].name, skipped);
        else
            n_passed++, printf("ok %s\n", tests[i].name);
        fflush(stdout);
    }
    printf("%d passed, %d failed, %d skipped\n", n_passed, n_failed, n_skipped);
    return n_failed ? 1 : 0;
}
