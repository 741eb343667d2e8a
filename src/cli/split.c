/* split: writes a model as several files, or several files as one, with the weights as they are.
 *
 *     zgen split IN OUT [--split-max-size N] [--split-max-tensors N]     OUT-00001-of-0000N.gguf
 *     zgen merge IN OUT                                                  IN: any one of the files
 *
 * Both print a notice with what was written, and nothing on stdout. */
#include "cli.h"
#include "convert.h"
#include "stop.h"

static bool write_copy(const Options *o, const char *what, QuantizeSplit split, Err *e) {
    Convert c = {.options = o, .what = what};
    stop_install();
    if (o->n_rest != 2) return err_set(e, ERR_USAGE, "the arguments are two files: zgen %s IN OUT", what);
    c.in = o->rest[0];
    c.out = o->rest[1];
    c.task = (QuantizeTask){.mix = mix_find("COPY"), .wishes = mix_no_wishes(), .split = split};
    bool ok = convert_open(&c, e) && convert_write(&c, e);
    if (ok)
        notice(&o->notices, "%s: %d file%s, %.3f GB, in %.1f s", c.names[0], quantize_n_files(c.quantize),
               quantize_n_files(c.quantize) > 1 ? "s" : "", (double)quantize_bytes(c.quantize) / 1e9,
               c.seconds);
    convert_close(&c);
    return ok;
}

bool cmd_split(const Options *o, Err *e) {
    const QuantizeOptions *q = &o->quantize;
    QuantizeSplit split = {.max_tensors = q->split_max_tensors, .first_is_empty = q->first_is_empty};
    if (q->split_max_size && !convert_read_size(q->split_max_size, &split.max_bytes, e)) return false;
    if (!split.max_bytes && !split.max_tensors) split.max_tensors = 128; // as llama-gguf-split
    return write_copy(o, "split", split, e);
}

bool cmd_merge(const Options *o, Err *e) {
    return write_copy(o, "merge", (QuantizeSplit){0}, e);
}
