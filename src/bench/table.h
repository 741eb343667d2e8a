/* bench_table: rows of results in the four formats of llama-bench.
 *
 * A row is what a person reads, cells under the columns' titles (md), and what a program reads, one JSON
 * object whose keys stand in the order in which they were set (csv, json, jsonl).  CSV has no lists and
 * no objects: such keys are left out of it.  Rows are written as they come; what was begun is ended, so that
 * an array that an error cuts short is still one. */
#ifndef ZGEN_BENCH_TABLE_H
#define ZGEN_BENCH_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include "../base/buf.h"
#include "../base/err.h"

enum { BENCH_COLUMNS = 24 };

typedef struct BenchColumn {
    const char *title;
    int width; // characters; negative: to the left
} BenchColumn;

typedef struct BenchTable {
    const char *format;         // "md", "csv", "json", "jsonl"
    const BenchColumn *columns; // [n_columns]
    int n_columns;
    bool is_batched; // drawn as llama-batched-bench draws: no space before the first column
    int n_rows;
} BenchTable;

/* What stands above the rows comes with the first.  cells: [n_columns], of which only md takes notice. object
 * is released. */
bool bench_table_row(BenchTable *t, const Buf *cells, json_t *object, Err *e);

/* To be called in the end, also after an error; writes nothing where there was no row. */
bool bench_table_end(const BenchTable *t, Err *e);

/* A number, or null for what is none: NAN. */
json_t *bench_number(double x);

#endif
