/* check: a small test harness.
 *
 * A test is a function that TEST(name) registers before main runs.  CHECK counts a failure and goes on;
 * REQUIRE ends the test.  SKIP ends it, with a reason, and skipped tests are counted apart.  Tests run from
 * the top of the tree: paths begin with test/, models/ or ../shared. */
#ifndef ZGEN_TEST_CHECK_H
#define ZGEN_TEST_CHECK_H

#include <stdbool.h>

#if defined(__SANITIZE_ADDRESS__) // it needs address space without limit, and handles signals itself
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

void test_register(const char *file, const char *name, void (*run)(void));
void test_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
void test_skip(const char *reason);

/* Macros because they need file and line, the text of the condition, and to end the calling function.  The
 * text is part of a format: a condition with a % does not compile, so its value is given a name before. */
#define TEST(name)                                                                                           \
    static void name(void);                                                                                  \
    __attribute__((constructor)) static void register_##name(void) {                                         \
        test_register(__FILE__, #name, name);                                                                \
    }                                                                                                        \
    static void name(void)
#define CHECK(condition, ...)                                                                                \
    do {                                                                                                     \
        if (!(condition)) test_fail(__FILE__, __LINE__, #condition " " __VA_ARGS__);                         \
    } while (0)
#define REQUIRE(condition, ...)                                                                              \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            test_fail(__FILE__, __LINE__, #condition " " __VA_ARGS__);                                       \
            return;                                                                                          \
        }                                                                                                    \
    } while (0)
#define SKIP(reason)                                                                                         \
    do {                                                                                                     \
        test_skip(reason);                                                                                   \
        return;                                                                                              \
    } while (0)

#endif
