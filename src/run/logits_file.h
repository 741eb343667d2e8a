/* logits_file: a model's predictions over a text, in the format of llama-perplexity (--save-all-logits writes
 * it, --kl-divergence-base reads it), so that either program can compare its models with the other's.
 *
 * A text is cut into windows of n_ctx tokens.  In each, the predictions of positions n_ctx / 2 to n_ctx - 2
 * count: the last of these predicts the last token.  All numbers are little endian:
 *
 *     "_logits_"  u32 n_ctx  i32 n_vocab  i32 n_windows
 *     i32 the tokens of the text                    [n_windows][n_ctx]
 *     rows                                          [n_windows][n_ctx - 1 - n_ctx / 2]
 *
 *     a row:  f32 scale  f32 min  u16 step          [n_vocab, one more if that is odd]
 *
 * The log-probability of token i is scale * step[i] + min: 65536 steps from the likeliest token down to 16
 * nats below it; less likely tokens have step 0.  The tokens are those of the text, without the BOS that
 * replaces the first of a window.
 *
 * Every field of a file is checked: its size must be that of its header's counts, to the byte, its tokens
 * below n_vocab, and a row that is compared must have probabilities that sum to 1. */
#ifndef ZGEN_RUN_LOGITS_FILE_H
#define ZGEN_RUN_LOGITS_FILE_H

#include "../base/buf.h"
#include "../base/float.h"
#include "../base/map.h"

enum { WINDOW_MIN = 8 }; // tokens: some predictions even in a single window

static inline int window_first(int n_ctx) { // position of the first prediction that counts
    return n_ctx / 2;
}
static inline int window_rows(int n_ctx) { // predictions that count
    return n_ctx - 1 - n_ctx / 2;
}

typedef struct LogitsFile {
    Map map;
    const char *path; // for messages; the caller's
    int n_ctx, n_vocab, n_windows;
    int32_t *ids; // [n_windows][n_ctx]
    const uint8_t *rows;
} LogitsFile;

/* false: ERR_RUN, the file cannot be read, is of another format, or is damaged; ERR_MEMORY. */
bool logits_file_open(const char *path, LogitsFile *out, Err *e);
void logits_file_close(LogitsFile *f); // {0} is fine

/* Sets the error of a damaged file, ERR_RUN.  Returns false. */
bool logits_file_damaged(const LogitsFile *f, const char *what, Err *e);

size_t logits_file_row_bytes(int n_vocab);
const uint8_t *logits_file_row(const LogitsFile *f, int row); // row counts through all windows

/* Appends the header and the tokens. */
void logits_file_head(int n_ctx, int n_vocab, int n_windows, const int32_t *ids, Buf *out);

/* Writes the row of finite logits[n_vocab], whose log_sum_exp is log_sum. */
void logits_file_encode(const float *logits, int n_vocab, double log_sum, uint8_t *row);

/* Whether the row holds only an upper limit of the token's probability: 16 nats below the likeliest. */
bool logits_row_is_cut(const uint8_t *row, int id);

static inline double logits_row_scale(const uint8_t *row) {
    return f32_from_bits(load_u32(row));
}
static inline double logits_row_min(const uint8_t *row) {
    return f32_from_bits(load_u32(row + 4));
}
static inline uint16_t logits_row_step(const uint8_t *row, int id) {
    return load_u16(row + 8 + 2 * (size_t)id);
}

#endif
