/* help: the tables of commands and options, printed. */
#include "cli.h"
#include "../base/buf.h"
#include "../cpu/cpu.h"

#include <string.h>

enum { COLUMN = 34 }; // where explanations begin

/* "-t, --threads N", "--kv f16|f32", "--profile[=kinds|ops]" */
static void add_usage(const Option *o, Buf *out) {
    for (int k = 0; k < 4 && o->names[k]; k++) buf_printf(out, "%s%s", k ? ", " : "", o->names[k]);
    if (o->value) buf_printf(out, " %s", o->value);
    bool is_optional = o->kind == OPTION_CHOICE && o->set;
    if (o->choices) buf_printf(out, is_optional ? "[=" : o->value ? "|" : " ");
    for (const char *c = o->choices; c && *c; c++) buf_add(out, *c == ' ' ? "|" : c, 1);
    if (is_optional) buf_printf(out, "]");
}

static void add_option(const Option *o, Buf *out) {
    size_t begin = out->n;
    buf_printf(out, "  ");
    add_usage(o, out);
    int used = (int)(out->n - begin);
    if (used < COLUMN)
        buf_printf(out, "%*s", COLUMN - used, "");
    else
        buf_printf(out, "\n%*s", COLUMN, "");
    bool is_switch = o->kind == OPTION_FLAG || o->kind == OPTION_WORD;
    buf_printf(out, "%s", o->help);
    if (o->standard && !is_switch) buf_printf(out, "; default: %s", o->standard);
    buf_printf(out, "\n");
}

static void add_commands(Buf *out) {
    int n;
    const Command *commands = command_table(&n);
    buf_printf(out, "zgen runs GGUF language models.\n\n");
    for (const Command *c = commands; c < commands + n; c++) {
        buf_printf(out, "  zgen %s %s\n", c->name, c->arguments);
        buf_printf(out, "%*s%s\n", COLUMN, "", c->text);
    }
    buf_printf(out, "  zgen help COMMAND\n%*sthe options of that command; man zgen explains them\n\n", COLUMN,
               "");
}

bool help_print(unsigned command, bool is_all, Err *e) {
    Buf text = {0};
    const Command *c = command_find(command_name(command));
    if (is_all)
        add_commands(&text);
    else
        buf_printf(&text, "zgen %s %s\n%s\n\n", c->name, c->arguments, c->text);
    buf_printf(&text, "Options of zgen %s:\n", c->name);
    int n;
    const Option *table = options_table(&n);
    for (int i = 0; i < n; i++)
        if (table[i].commands & command) add_option(&table[i], &text);
    buf_printf(&text,
               "\nExit codes: 0 success, 1 failure while running, 2 wrong command line, 3 model file, 4 not "
               "enough memory,\n"
               "5 output not written, 130 SIGINT, 143 SIGTERM, 141 closed pipe.\n");
    bool ok = out_write(text.data, text.n, e);
    buf_free(&text);
    return ok;
}

bool help_version(Err *e) {
    Buf text = {0};
    buf_printf(&text, "zgen %s (CPU: %s)\n", ZGEN_VERSION, cpu_isa("auto"));
    bool ok = out_write(text.data, text.n, e);
    buf_free(&text);
    return ok;
}
