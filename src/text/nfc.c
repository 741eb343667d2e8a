/* nfc: see nfc.h.
 *
 * Each character is decomposed.  A character of class 0 begins a cluster; those behind it up to the next such
 * character are its marks.  When a cluster ends, its marks are sorted by class, and each mark is joined to
 * the begin of the cluster where the two have a composition and no mark of the same class is between them.  A
 * cluster that kept no mark may also be joined to the begin of the next one, as vowels of Hangul are.
 *
 * The one trick: most characters are in blocks of 256 in which nothing decomposes, is a mark or is joined to
 * the character before.  A bit per block tells that without a search. */
#include "nfc.h"
#include "nfc_table.h"
#include "../base/mem.h"
#include "../base/utf8.h"

#include <stdlib.h>

enum { FIRST_MARK = 0x300 }; // characters before it decompose, but a text of them alone is composed

enum { // the letters of Hangul: a leading consonant, a vowel, perhaps a trailing consonant
    LEADS = 0x1100,
    VOWELS = 0x1161,
    TRAILS = 0x11A7, // one before the first: the syllable without a trail
    SYLLABLES = 0xAC00,
    N_LEADS = 19,
    N_VOWELS = 21,
    N_TRAILS = 28,
    N_SYLLABLES = N_LEADS * N_VOWELS * N_TRAILS,
};

typedef struct Mark {
    uint32_t c, class;
    size_t at; // position in the text, in characters
} Mark;

typedef struct Cluster {
    uint32_t first; // of class 0; NONE: the text began with marks
    Mark *marks;
    size_t n, capacity;
    size_t at; // characters so far
    Buf *out;
} Cluster;

static const uint32_t NONE = UINT32_MAX;

/* ---- the tables ---- */

static bool is_inert(uint32_t c) {
    uint32_t word = c >> 13;
    return word >= (uint32_t)NFC_BLOCKS_N || !(NFC_BLOCKS[word] >> (c >> 8 & 31) & 1);
}

static int compare_pair(const void *key, const void *item) {
    uint32_t c = *(const uint32_t *)key, whole = ((const NfcPair *)item)->whole;
    return (c > whole) - (c < whole);
}

static int compare_run(const void *key, const void *item) {
    uint32_t c = *(const uint32_t *)key;
    const NfcRun *run = item;
    return (c > run->to) - (c < run->from);
}

static int compare_joined(const void *key, const void *item) {
    const NfcPair *wanted = key, *pair = &NFC_PAIRS[*(const uint16_t *)item];
    if (wanted->first != pair->first) return wanted->first < pair->first ? -1 : 1;
    return (wanted->second > pair->second) - (wanted->second < pair->second);
}

static uint32_t class_of(uint32_t c) {
    const NfcRun *run = bsearch(&c, NFC_RUNS, (size_t)NFC_RUNS_N, sizeof *run, compare_run);
    return run ? run->order : 0;
}

/* The composition of two characters, or NONE. */
static uint32_t join(uint32_t first, uint32_t second) {
    if (first - LEADS < N_LEADS && second - VOWELS < N_VOWELS)
        return SYLLABLES + ((first - LEADS) * N_VOWELS + (second - VOWELS)) * N_TRAILS;
    bool is_open = first - SYLLABLES < N_SYLLABLES && (first - SYLLABLES) % N_TRAILS == 0;
    if (is_open && second - TRAILS - 1 < N_TRAILS - 1) return first + (second - TRAILS);
    const NfcPair wanted = {.first = first, .second = second};
    const uint16_t *i =
        bsearch(&wanted, NFC_JOINED, (size_t)NFC_JOINED_N, sizeof *NFC_JOINED, compare_joined);
    return i ? NFC_PAIRS[*i].whole : NONE;
}

/* ---- composing ---- */

static int compare_marks(const void *a, const void *b) {
    const Mark *x = a, *y = b;
    if (x->class != y->class) return x->class < y->class ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

/* Sorts the marks and joins those that can be; the others remain. */
static void join_marks(Cluster *k) {
    if (k->n > 1) qsort(k->marks, k->n, sizeof *k->marks, compare_marks);
    size_t kept = 0;
    for (size_t i = 0; i < k->n; i++) {
        bool blocked = k->first == NONE || (kept && k->marks[kept - 1].class == k->marks[i].class);
        uint32_t joined = blocked ? NONE : join(k->first, k->marks[i].c);
        if (joined == NONE)
            k->marks[kept++] = k->marks[i];
        else
            k->first = joined;
    }
    k->n = kept;
}

static void begin(Cluster *k, uint32_t c) {
    if (k->first != NONE) utf8_add(k->first, k->out);
    for (size_t i = 0; i < k->n; i++) utf8_add(k->marks[i].c, k->out);
    k->n = 0;
    k->first = c;
}

static void add_character(Cluster *k, uint32_t c) {
    uint32_t class = is_inert(c) ? 0 : class_of(c);
    k->at++;
    if (class) {
        if (k->n == k->capacity) {
            k->capacity = k->capacity ? k->capacity * 2 : 16;
            k->marks = mem_resize(k->marks, k->capacity * sizeof *k->marks);
        }
        k->marks[k->n++] = (Mark){c, class, k->at};
        return;
    }
    join_marks(k);
    uint32_t joined = k->first == NONE || k->n || is_inert(c) ? NONE : join(k->first, c);
    if (joined == NONE)
        begin(k, c);
    else
        k->first = joined;
}

static void add_decomposed(Cluster *k, uint32_t c) {
    const NfcPair *pair = NULL;
    if (!is_inert(c)) pair = bsearch(&c, NFC_PAIRS, (size_t)NFC_PAIRS_N, sizeof *pair, compare_pair);
    if (!pair) {
        add_character(k, c);
        return;
    }
    add_decomposed(k, pair->first);
    if (pair->second) add_character(k, pair->second);
}

static bool may_change(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] >= (0xC0 | FIRST_MARK >> 6)) return true; // the head of such a character
    return false;
}

bool nfc_compose(const char *text, size_t n, Buf *out) {
    if (!may_change(text, n)) return false;
    buf_clear(out);
    Cluster k = {.first = NONE, .out = out};
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += utf8_next(text + i, n - i, &c);
        add_decomposed(&k, c);
    }
    join_marks(&k);
    begin(&k, NONE);
    free(k.marks);
    return true;
}
