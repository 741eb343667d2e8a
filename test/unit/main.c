/* The unit test program: test_unit [-j N] [--times] [NAME...] runs every registered test whose name contains
 * one of the NAMEs (all without any), prints a line for each, and ends with the counts.
 *
 * With -j N each test runs in a process of its own, N at a time.  The output of a test is kept until the
 * tests before it are done, so that the output is that of one process, and a test that crashes is a test that
 * failed.  Without -j all tests run in this process, for debuggers and for tests that share a device.
 * --times adds to each line the processor seconds that the test took.
 *
 * The program is also built for aarch64 and run under qemu-user, where there is no Jansson and no PCRE2 to
 * link: files of tests that include <jansson.h>, golden.h or a header of a room that needs one of the two are
 * left out of that build. */
#include "check.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_TESTS = 1000 };
typedef enum Outcome { PASSED, FAILED, SKIPPED, N_OUTCOMES } Outcome;

typedef struct Test {
    const char *file, *name;
    void (*run)(void);
} Test;

static Test tests[MAX_TESTS];
static int n_tests;
static int failures; // of the running test
static const char *skipped;
static bool prints_times;

void test_register(const char *file, const char *name, void (*run)(void)) {
    if (n_tests == MAX_TESTS) abort();
    tests[n_tests++] = (Test){file, name, run};
}

void test_fail(const char *file, int line, const char *format, ...) {
    if (++failures > 10) return; // the first ten are enough
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

/* Of this process (RUSAGE_SELF) or of its ended children. */
static double cpu_seconds(int whose) {
    struct rusage u;
    getrusage(whose, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static double cpu_seconds_so_far(void) {
    return cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN);
}

static Outcome run_test(const Test *t) {
    char time[32] = "";
    double start = cpu_seconds_so_far();
    failures = 0;
    skipped = NULL;
    t->run();
    if (prints_times) snprintf(time, sizeof time, "  %.2f s", cpu_seconds_so_far() - start);
    if (failures)
        printf("not ok %s (%s)%s\n", t->name, t->file, time);
    else if (skipped)
        printf("skipped %s: %s%s\n", t->name, skipped, time);
    else
        printf("ok %s%s\n", t->name, time);
    fflush(stdout);
    return failures ? FAILED : skipped ? SKIPPED : PASSED;
}

static void run_here(const Test *const *list, int n, int count[N_OUTCOMES]) {
    for (int i = 0; i < n; i++) count[run_test(list[i])]++;
}

/* ---- processes ---- */

typedef struct Process { // that runs one test
    pid_t pid;           // 0 before it starts
    FILE *output;        // stdout and stderr
    bool ended;
    int status; // of wait
} Process;

static void start(Process *p, const Test *t) {
    fflush(NULL);
    p->output = tmpfile();
    if (!p->output || (p->pid = fork()) < 0) {
        perror("test_unit");
        exit(1);
    }
    if (p->pid > 0) return;
    dup2(fileno(p->output), STDOUT_FILENO);
    dup2(fileno(p->output), STDERR_FILENO);
    exit(run_test(t)); // not _exit: the leak checker reports at the end
}

static void wait_for_one(Process *processes, int n) {
    int status;
    pid_t pid = wait(&status);
    for (int i = 0; i < n; i++)
        if (processes[i].pid == pid) {
            processes[i].ended = true;
            processes[i].status = status;
        }
}

static Outcome report(Process *p, const Test *t) {
    char bytes[4096];
    rewind(p->output);
    for (size_t n; (n = fread(bytes, 1, sizeof bytes, p->output)) > 0;) fwrite(bytes, 1, n, stdout);
    fclose(p->output);
    Outcome outcome = WIFEXITED(p->status) ? (Outcome)WEXITSTATUS(p->status) : N_OUTCOMES;
    if (outcome >= N_OUTCOMES) {
        printf("not ok %s (%s): ended with wait status %d\n", t->name, t->file, p->status);
        outcome = FAILED;
    }
    fflush(stdout);
    return outcome;
}

static void run_apart(const Test *const *list, int n, int n_jobs, int count[N_OUTCOMES]) {
    static Process processes[MAX_TESTS];
    int n_started = 0, n_reported = 0, n_running = 0;
    while (n_reported < n) {
        for (; n_started < n && n_running < n_jobs; n_running++, n_started++)
            start(&processes[n_started], list[n_started]);
        wait_for_one(processes, n_started);
        n_running--;
        for (; n_reported < n_started && processes[n_reported].ended; n_reported++)
            count[report(&processes[n_reported], list[n_reported])]++;
    }
}

/* ---- main ---- */

static bool is_wanted(const Test *t, char **names) {
    for (char **name = names; *name; name++)
        if (strstr(t->name, *name)) return true;
    return !*names;
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"times", no_argument, NULL, 't'}, {0}};
    static const Test *list[MAX_TESTS];
    int n = 0, n_jobs = 0, count[N_OUTCOMES] = {0};
    for (int option; (option = getopt_long(argc, argv, "j:", options, NULL)) != -1;) {
        if (option == 't')
            prints_times = true;
        else if (option == 'j')
            n_jobs = atoi(optarg);
        else
            return 2;
    }
    for (int i = 0; i < n_tests; i++)
        if (is_wanted(&tests[i], argv + optind)) list[n++] = &tests[i];
    if (n_jobs > 0)
        run_apart(list, n, n_jobs, count);
    else
        run_here(list, n, count);
    printf("%d passed, %d failed, %d skipped\n", count[PASSED], count[FAILED], count[SKIPPED]);
    return count[FAILED] ? 1 : 0;
}
