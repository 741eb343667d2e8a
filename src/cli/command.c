/* command: see command.h. */
#include "command.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

static const Command TABLE[] = {
    {FOR_GENERATE, "generate", "[-m MODEL] [-p TEXT | -f FILE]",
     "text after the prompt (when no command is named)"},
    {FOR_CHAT, "chat", "[-m MODEL] [-sys TEXT]",
     "a conversation, line by line; /help there lists its commands"},
    {FOR_INFO, "info", "[MODEL]", "what a model file contains, and the memory that it needs"},
    {FOR_TOKENIZE, "tokenize", "[-m MODEL] [-p TEXT | -f FILE | --decode IDS]",
     "the tokens of a text, or the text of tokens"},
    {FOR_LOGITS, "logits", "[-m MODEL] (--ids IDS | --ids-file FILE) -o OUT",
     "the logits after each token, as float32"},
    {FOR_PERPLEXITY, "perplexity", "[-m MODEL] -f FILE [--save-logits F] [--kl F]",
     "how well a model predicts a text or answers; KL divergence"},
    {FOR_BENCH, "bench", "[-m MODEL | --shape SHAPE | --ceilings | --compare A B]",
     "speed on this machine, in the tables of llama-bench"},
    {FOR_QUANTIZE, "quantize", "IN OUT TYPE", "writes the model IN to OUT with weights of another type"},
    {FOR_IMATRIX, "imatrix", "[-m MODEL] -f FILE [-o OUT]",
     "makes an importance matrix of a model from a text, for quantize"},
    {FOR_SPLIT, "split", "IN OUT [--split-max-size N]", "writes a model as several files"},
    {FOR_MERGE, "merge", "IN OUT", "writes a model of several files as one"},
    {FOR_SYNTH, "synth", "SHAPE MIX OUT", "writes a model of random weights, for measuring"},
};
enum { N_COMMANDS = sizeof TABLE / sizeof *TABLE };

const Command *command_table(int *n) {
    *n = N_COMMANDS;
    return TABLE;
}

const Command *command_find(const char *name) {
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(TABLE[i].name, name) == 0) return &TABLE[i];
    return NULL;
}

const char *command_name(unsigned bits) {
    int i = 0;
    while (i < N_COMMANDS && !(TABLE[i].bit & bits)) i++;
    assert(i < N_COMMANDS);
    return TABLE[i].name;
}
