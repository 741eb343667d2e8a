/* bench_tok: the speed of a tokenizer on a text, and on runs of one character, over which it must not take
 * quadratic time.
 *
 *     build/scripts/workshop/bench_tok MODEL.gguf TEXT [PRE...]        (make test builds it)
 *
 * One line per text of 10 MB (TEXT is repeated): seconds of processor time of one core, MB/s, ids.  The goal
 * is 10 MB/s on English, and about the same time for every run of one character. */
#include "../../src/base/mem.h"
#include "../../src/text/tok.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N = 10000000 };

static double seconds(void) {
    return (double)clock() / CLOCKS_PER_SEC;
}

static void measure(const Tok *t, const char *label, const char *text) {
    TokIds ids = {0};
    double start = seconds();
    tok_encode(t, text, N, 0, &ids);
    double took = seconds() - start;
    printf("  %-16s %7.3f s %7.1f MB/s %9zu ids\n", label, took, N / 1e6 / took, ids.n);
    tok_ids_free(&ids);
}

static void fill(char *text, const char *unit, size_t n) {
    for (size_t i = 0; i < N; i++) text[i] = unit[i % n];
    for (; n > 1 && text[N - 1] & 0x80; n--) text[N - 1] = ' '; // no half characters at the end
}

static void measure_all(const Gguf *g, const char *pre, const char *prose, char *text) {
    static const char *const units[] = {"a", "A", " ", "\n", "1", "'", "a ", "\u65E5", "\u0301"};
    Tok *t = NULL;
    Err e = {0};
    double start = seconds();
    if (!tok_open_as(g, pre, &t, &e)) {
        fprintf(stderr, "%s\n", e.text);
        exit(1);
    }
    printf("%s, %.*s: opened in %.3f s\n", tok_describe(t), (int)tok_pre(t).n, tok_pre(t).data,
           seconds() - start);
    measure(t, "TEXT", prose);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        fill(text, units[i], strlen(units[i]));
        measure(t, units[i][0] == '\n' ? "newlines" : units[i][0] == ' ' ? "spaces" : units[i], text);
    }
    uint32_t seed = 1;
    for (size_t i = 0; i < N; i++) {
        seed = seed * 1664525 + 1013904223;
        text[i] = (char)('a' + (seed >> 16) % 26);
    }
    measure(t, "random letters", text);
    tok_close(t);
}

int main(int argc, char **argv) {
    Gguf *g = NULL;
    Err e = {0};
    FILE *file = argc > 2 ? fopen(argv[2], "rb") : NULL;
    if (!file || !gguf_open(argv[1], &g, &e)) {
        fprintf(stderr, "%s\n", e.text[0] ? e.text : "bench_tok MODEL.gguf TEXT [PRE...]");
        return 1;
    }
    char *prose = mem_new(N, 1), *text = mem_new(N, 1);
    size_t n = fread(prose, 1, N, file);
    fclose(file);
    for (size_t i = n; n && i < N; i++) prose[i] = prose[i - n];
    measure_all(g, NULL, prose, text);
    for (int i = 3; i < argc; i++) measure_all(g, argv[i], prose, text);
    gguf_close(g);
    free(prose);
    free(text);
    return 0;
}
