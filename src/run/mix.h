/* mix: which type each tensor of a model gets under a name like "Q4_K_M".
 *
 * The one table of mixes, for quantize and synth.  Choices are llama.cpp's, so that a file has the size and the
 * types that its name promises: more bits for the output, for values and down projections in some layers, and
 * for matrices that eight experts share; another type where the width of a matrix is no multiple of the block.
 * Each choice is a row of the table, not code.  Its exceptions for Falcon, which zgen does not run, are left
 * out.  A user's choices for single tensors (MixWishes) come before those of the mix. */
#ifndef ZGEN_RUN_MIX_H
#define ZGEN_RUN_MIX_H

#include "../base/buf.h"
#include "../gguf/gguf.h"

typedef enum MixPlace { // which of the n tensors of a kind, in the order of layers
    MIX_NOWHERE,
    MIX_FIRST_TWO,
    MIX_FIRST_FOUR,
    MIX_FIRST_SIXTEENTH, // of the layers, and so below
    MIX_FIRST_EIGHTH,
    MIX_EIGHTH_WEIGHED,   // the first eighth, where there is an importance matrix
    MIX_EIGHTH_UNWEIGHED, // where there is none
    MIX_SPREAD,           // the first eighth, the last, every third between
    MIX_SHARED,           // all, where at least four query heads share a key/value head
} MixPlace;

typedef struct MixChoice { // the types there and elsewhere
    MixPlace place;
    QuantType there, elsewhere;
} MixChoice;

/* In a choice F32 stands for the type of most matrices. */
typedef struct Mix {
    const char *name;                  // file_type_number returns its number; FP8 and COPY have none
    QuantType most;                    // of most matrices
    MixChoice values, down;            // of values, of down projections
    QuantType attn_output, o_of_eight; // of the attention's output; in models with eight experts
    QuantType embd;                    // of token embeddings, where these are not the output, too
    QuantType experts;                 // of matrices of experts
    bool is_copy;                      // every tensor keeps its type
    bool needs_importance;             // without an importance matrix the model is useless
} Mix;

/* The mix of that name in upper or lower case, or NULL.  "Q3_K", "Q4_K" and "Q5_K" are the _M ones. */
const Mix *mix_find(const char *name);

/* "F32 F16 ...", for help: all mixes with weights of their own, or COPY as well. */
void mix_list(bool with_copy, Buf *out);

typedef struct MixModel { // properties of the model that choices depend on
    int n_layer, n_expert;
    int n_shared;        // query heads of each key/value head
    bool is_70b;         // 80 layers with fewer key/value heads than query heads
    bool has_importance; // an importance matrix is used
} MixModel;

/* What the user wants for single tensors.  MIX_ANY: as the mix says. */
enum { MIX_ANY = -1 };

typedef struct MixRule { // a type for tensors whose name contains a match
    void *pattern;       // a compiled regular expression
    QuantType type;
} MixRule;

typedef struct MixWishes { // the first rule that fits is taken; embd and output come before rules
    bool pure;             // all matrices get the type of most
    bool keep_output;      // output.weight keeps its type
    int embd, output;      // QuantType
    MixRule *rules;        // [n_rules]
    int n_rules;
} MixWishes;

MixWishes mix_no_wishes(void);

/* Adds the rule PATTERN=TYPE: a POSIX extended regular expression, in lower case as names are.  false:
 * ERR_USAGE. */
bool mix_add_rule(MixWishes *w, const char *text, Err *e);
void mix_wishes_free(MixWishes *w);

/* The type of that name in upper or lower case, for a tensor.  false: ERR_USAGE; option is for the message. */
bool mix_read_type(const char *option, const char *name, QuantType *out, Err *e);

/* Fills types[n], and with wanted != NULL wanted[n], the types before rows that are no multiple of the block
 * had to get another one.  Tensors that are never quantised (vectors, norms, routers, ...) keep their type. */
void mix_types(const Mix *mix, const MixWishes *wishes, const MixModel *model, const GgufTensor *tensors,
               int64_t n, QuantType *types, QuantType *wanted);

#endif
