/* table: rows of results in the formats of llama-bench, on stdout and in another format on stderr.
 *
 * A row is cells under the titles of columns (md), and one JSON object whose keys keep their order (csv,
 * json, jsonl, sql).  CSV leaves out keys that hold lists or objects.  SQL makes a table llama_bench with the
 * keys up to the samples, those of llama-bench, so that one database holds rows of both.  Each row is written when it is added; an
 * array that was begun is ended even after an error, so that the output is valid JSON. */
#ifndef ZGEN_BENCH_TABLE_H
#define ZGEN_BENCH_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include "../base/buf.h"
#include "../base/err.h"

enum { BENCH_COLUMNS = 24 };

typedef struct BenchColumn {
    const char *title;
    int width; // in characters; negative: aligned to the left
} BenchColumn;

typedef struct BenchTable {
    const char *format;         // "md", "csv", "json", "jsonl", "sql" or "none"
    const char *err_format;     // of stderr; NULL: none
    const BenchColumn *columns; // [n_columns]
    int n_columns;
    bool is_batched; // in the style of llama-batched-bench: no space before the first column
    int n_rows;
} BenchTable;

/* Prints a row, and before the first one the head of the table.  cells: [n_columns], used by md only.  object
 * is released.  false: ERR_OUTPUT, ERR_PIPE. */
bool bench_table_row(BenchTable *t, const Buf *cells, json_t *object, Err *e);

/* To be called at the end, also after an error; prints nothing if there was no row. */
bool bench_table_end(const BenchTable *t, Err *e);

/* Appends llama-bench's name of a test: "pp512", "tg128", "pp512+tg128 @ d4096". */
void bench_add_test(Buf *out, int n_prompt, int n_gen, int n_depth);

#endif
