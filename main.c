/* zgen: runs GGUF language models from the command line.
 *
 * Finds the command that the arguments name, has its options read, runs it, and turns its result
 * into an exit code and at most one line on stderr.  To add a command, write src/cli/<command>.c, a row in
 * src/cli/command.c, and a row here. */
#include "src/bench/bench.h"
#include "src/cli/cli.h"
#include "src/cli/llama_flags.h"
#include "src/cli/show.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const struct {
    unsigned command; // FOR_...
    bool (*run)(const Options *o, Err *e);
} RUNS[] = {
    {FOR_GENERATE, cmd_generate}, {FOR_CHAT, cmd_chat},         {FOR_INFO, cmd_info},
    {FOR_TOKENIZE, cmd_tokenize}, {FOR_LOGITS, cmd_logits},     {FOR_PERPLEXITY, cmd_perplexity},
    {FOR_BENCH, cmd_bench},       {FOR_QUANTIZE, cmd_quantize}, {FOR_IMATRIX, cmd_imatrix},
    {FOR_SPLIT, cmd_split},       {FOR_MERGE, cmd_merge},       {FOR_SYNTH, cmd_synth},
};
enum { N_RUNS = sizeof RUNS / sizeof *RUNS };

/* generate with -cnv is a conversation; chat with -st is a single answer. */
static unsigned effective_command(unsigned command, const Options *o) {
    if (command != FOR_GENERATE && command != FOR_CHAT) return command;
    bool is_chat = command == FOR_CHAT || o->chat;
    return is_chat && !o->single_turn && !o->print_prompt ? FOR_CHAT : FOR_GENERATE;
}

static bool run(unsigned command, const Options *o, Err *e) {
    int i = 0;
    while (i < N_RUNS && RUNS[i].command != command) i++;
    assert(i < N_RUNS);
    return RUNS[i].run(o, e);
}

/* zgen [COMMAND] [OPTION]..., zgen help [COMMAND] */
static bool dispatch(int argc, char **argv, Err *e) {
    bool wants_help = argc > 1 && strcmp(argv[1], "help") == 0;
    argc -= wants_help;
    argv += wants_help;
    bool is_named = argc > 1 && argv[1][0] != '-';
    int n_commands;
    const Command *c = is_named ? command_find(argv[1]) : command_table(&n_commands);
    if (!c)
        return err_set(e, ERR_USAGE,
                       "unknown command '%.100s'; zgen help lists the commands (a prompt is given with -p, a "
                       "model with -m)",
                       argv[1]);
    Options o;
    bool ok = options_parse(c->bit, llama_flags(), argc - is_named, argv + is_named, &o, e);
    if (ok && o.version)
        ok = help_version(e);
    else if (ok && (o.help || wants_help))
        ok = help_print(c->bit, !is_named, e);
    else if (ok)
        ok = run(effective_command(c->bit, &o), &o, e);
    options_free(&o);
    return ok;
}

int main(int argc, char **argv) {
    Err e = {0};
    show_open();
    bool ok = out_open(&e) && dispatch(argc, argv, &e) && out_close(&e);
    if (ok) return 0;
    if (e.text[0]) fprintf(stderr, "zgen: %s\n", e.text);
    return e.code;
}
