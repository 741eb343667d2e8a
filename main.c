/* zgen: runs GGUF language models from the command line.
 *
 * This file owns the list of commands: it finds the one that is meant, has its options read, runs it, and
 * turns what comes back into one line on stderr and an exit code.  To add a command, write
 * src/cli/<command>.c and a row here. */
#include "src/cli/cli.h"

#include <stdio.h>
#include <string.h>

static const Command commands[] = {
    {"generate", FOR_GENERATE, "[-m MODEL] [-p TEXT | -f FILE]",
     "text after the prompt (when no command is named)", cmd_generate},
    {"chat", FOR_CHAT, "[-m MODEL] [-sys TEXT]",
     "a conversation: lines in, answers out; /help there lists more", cmd_chat},
    {"info", FOR_INFO, "[MODEL]", "what a file is, what memory it needs; the tape of its operations",
     cmd_info},
    {"tokenize", FOR_TOKENIZE, "[-m MODEL] [-p TEXT | -f FILE | --decode IDS]",
     "the tokens of a text, and back", cmd_tokenize},
    {"logits", FOR_LOGITS, "[-m MODEL] (--ids IDS | --ids-file FILE) -o OUT", "the logits behind each token",
     cmd_logits},
    {"perplexity", FOR_PERPLEXITY, "[-m MODEL] -f FILE [--save-logits F] [--kl F]",
     "how well a text is predicted, and how far from another model's predictions", cmd_perplexity},
    {"bench", FOR_BENCH, "[-m MODEL | --shape SHAPE | --ceilings | --compare A B]",
     "how fast it is here, in llama-bench's words", cmd_bench},
    {"quantize", FOR_QUANTIZE, "IN OUT TYPE", "the model IN with weights of another type; replaces OUT",
     cmd_quantize},
    {"synth", FOR_SYNTH, "SHAPE MIX OUT", "a model of random weights, to measure with", cmd_synth},
    {0},
};

static const Command *find(const char *name) {
    const Command *c = commands;
    while (c->name && strcmp(c->name, name) != 0) c++;
    return c->name ? c : NULL;
}

/* zgen [COMMAND] [OPTION]..., zgen help [COMMAND] */
static bool dispatch(int argc, char **argv, Err *e) {
    bool wants_help = argc > 1 && strcmp(argv[1], "help") == 0;
    if (wants_help) argc--, argv++;
    bool is_named = argc > 1 && argv[1][0] != '-';
    const Command *c = is_named ? find(argv[1]) : commands;
    if (!c)
        return err_set(
            e, ERR_USAGE,
            "unknown command '%.100s'; zgen help lists them (a prompt is given with -p, a model with -m)",
            argv[1]);
    Options o;
    bool ok = options_parse(c->bit, argc - is_named, argv + is_named, &o, e);
    if (ok && o.version)
        ok = help_version(e);
    else if (ok && (o.help || wants_help))
        ok = help_print(commands, c, !is_named, e);
    else if (ok)
        ok = c->run(&o, e);
    options_free(&o);
    return ok;
}

int main(int argc, char **argv) {
    Err e = {0};
    bool ok = out_open(&e) && dispatch(argc, argv, &e) && out_close(&e);
    if (ok) return 0;
    if (e.text[0]) fprintf(stderr, "zgen: %s\n", e.text);
    return e.code;
}
